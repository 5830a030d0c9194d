"""The command itself: how it starts, how it ends, what it says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import environment, idle_share, issun

QUESTION = [{"role": "user", "content": "日本で一番高い山は?"}]
LONG = {"messages": QUESTION, "max_tokens": 400, "min_tokens": 400, "stream": True}


@contextmanager
def serving(*arguments: str, **changes: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`issun serve --port 0` as a process, and its address."""
    command = [sys.executable, "-m", "issun.cli.main", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(**changes), encoding="utf-8"
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        address = found[0]
        end = time.monotonic() + 30
        while True:
            try:
                httpx.get(address + "/health", timeout=5)
                break
            except httpx.TransportError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield process, address
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_ends_running_streams_within_five_seconds() -> None:
    with serving("--threads", "1", "--slots", "1") as (process, address):
        url = address + "/v1/chat/completions"
        endless = LONG | {"n": 4}  # one after the other: longer than the grace
        with httpx.stream("POST", url, json=endless, timeout=30) as found:
            lines = found.iter_lines()
            next(line for line in lines if "content" in line)
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            rest = [line for line in lines if line]
        assert process.wait(10) == 0
        assert time.monotonic() - started < 5
        assert rest[-1] == "data: [DONE]"
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert error["code"] == "unavailable"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_second_signal_ends_the_server_at_once_and_without_a_traceback() -> None:
    with serving("--threads", "1") as (process, address):
        url = address + "/v1/chat/completions"
        with httpx.stream("POST", url, json=LONG | {"n": 4}, timeout=30) as found:
            next(found.iter_lines())
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
                time.sleep(0.05)
            process.wait(10)
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_sigterm_lets_short_answers_finish() -> None:
    with serving("--threads", "1") as (process, address):
        body = {"messages": QUESTION, "stream": True, "temperature": 0}
        with httpx.stream("POST", address + "/v1/chat/completions", json=body, timeout=30) as found:
            lines = found.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert '"finish_reason":"stop"' in rest[-2]
        assert process.wait(10) == 0


def test_after_kill_9_a_new_one_takes_the_same_port() -> None:
    with serving("--threads", "1") as (process, address):
        httpx.post(
            address + "/v1/chat/completions",
            json={"messages": QUESTION, "max_tokens": 2},
            timeout=30,
        ).raise_for_status()
        port = address.rsplit(":", 1)[1]
        process.kill()
        process.wait(10)
        with serving("--threads", "1", "--port", port) as (_, again):
            assert again == address


def test_nothing_that_is_asked_is_written(tmp_path: Path) -> None:
    with serving("--threads", "1") as (process, address):
        url = address + "/v1/chat/completions"
        secret = [{"role": "user", "content": "ひみつの質問"}]
        httpx.post(url, json={"messages": secret, "max_tokens": 2}, timeout=30)
        httpx.post(url, json={"messages": secret, "regex": "("}, timeout=30)
        httpx.post(url, json={"messages": secret * 2000, "max_tokens": 2}, timeout=30)
        process.terminate()
        process.wait(10)
        assert process.stderr is not None
        assert "ひみつ" not in process.stderr.read()


@pytest.mark.slow
def test_mistakes_are_one_line_each(tmp_path: Path) -> None:
    for arguments, part in (
        (["--host", "0.0.0.0"], "can be reached from other computers"),  # noqa: S104
        (["--port", "70000"], "from 0 to 65535"),
        (["--kv-memory", "1KB"], "do not fit"),
        (["--kv-memory", "much"], "amount of memory"),
        (["--api-key-file", str(tmp_path / "none")], "cannot be read"),
        (["--host", "no.such.host.invalid", "--api-key", "x"], "Cannot listen"),
        ([str(tmp_path / "nothing")], "nothing"),
    ):
        found = issun("serve", *arguments)
        assert found.code == 2, arguments
        assert found.err.startswith("error: ")
        assert part in found.err
        assert found.err.count("\n") == 1


def test_a_port_that_is_taken_is_told() -> None:
    with serving("--threads", "1") as (_, address):
        found = issun("serve", "--port", address.rsplit(":", 1)[1])
    assert found.code == 2
    assert "Cannot listen on 127.0.0.1" in found.err


def test_the_key_of_the_environment_is_asked_for() -> None:
    with serving("--threads", "1", ISSUN_API_KEY="k") as (_, address):
        assert httpx.get(address + "/v1/models").status_code == 401
        key = {"Authorization": "Bearer k"}
        assert httpx.get(address + "/v1/models", headers=key).status_code == 200


@pytest.mark.slow
def test_constrained_answers_on_the_command_line(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["はい", "いいえ"]}', encoding="utf-8")
    ask = ["generate", "--instruction", "富士山は山ですか?", "--temperature", "0"]
    assert json.loads(issun(*ask, "--json-schema", schema).out) in ("はい", "いいえ")
    assert issun(*ask, "--choices", "はい", "--choices", "いいえ").out.strip() in ("はい", "いいえ")
    assert re.fullmatch("[0-9]{3}\n", issun(*ask, "--regex", "[0-9]{3}").out)
    both = issun(*ask, "--regex", "a", "--choices", "b")
    assert (both.code, both.err) == (2, "error: Give only one of choices and regex.\n")
    schema.write_text("[", encoding="utf-8")
    broken = issun(*ask, "--json-schema", schema)
    assert broken.code == 2
    assert "is not a JSON schema" in broken.err
    assert broken.err.count("\n") == 1


@pytest.mark.slow
def test_a_server_that_nobody_asks_takes_no_cpu() -> None:
    with serving("--threads", "2") as (process, address):
        body = {"messages": QUESTION, "max_tokens": 20}
        httpx.post(address + "/v1/chat/completions", json=body, timeout=30).raise_for_status()
        assert idle_share(process.pid) < 0.01
