"""Schemas that take long to compile keep nobody else waiting, and no server alive."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from typing import Any

import httpx
import psutil
import pytest

from issun.runtime.constraint import pool
from tests.needs import posix
from tests.server.conftest import embedded_server

CHAT = "/v1/chat/completions"
PLAIN = {"messages": [{"role": "user", "content": "山"}], "max_tokens": 2}


def slow(number: int) -> dict[str, Any]:
    """A request whose schema takes for ever."""
    schema = {"type": "number", "multipleOf": 1 << 31, "minimum": -number}
    return PLAIN | {
        "max_tokens": 100,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
    }


def test_plain_requests_do_not_wait_for_slow_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_SECONDS", 300.0)
    with embedded_server() as server, ThreadPoolExecutor(60) as clients:
        asked = [clients.submit(server.post, CHAT, slow(n)) for n in range(60)]
        refused = [each.result() for each in islice(as_completed(asked), 60 - 32)]
        assert {response.status_code for response in refused} == {429}
        assert all(int(response.headers["Retry-After"]) > 0 for response in refused)
        assert all("waiting to be compiled" in response.text for response in refused)
        assert server.post(CHAT, PLAIN).is_success
        assert server.post("/v1/completions", {"prompt": "山", "max_tokens": 2}).is_success
        assert server.post("/tokenize", {"prompt": "山"}).is_success
        assert sum(not each.done() for each in asked) == 32
        server.service.model.preparation.stop()
        assert {each.result().status_code for each in asked} == {429, 503}


def test_a_slow_schema_is_refused_and_the_next_one_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_SECONDS", 0.5)
    with embedded_server() as server:
        for _ in range(2):
            refused = server.post(CHAT, slow(0))
            assert refused.status_code == 400
            assert "takes more than 0.5 s to compile" in refused.json()["error"]["message"]
        assert server.post(CHAT, PLAIN | {"structured_outputs": {"choice": ["山"]}}).is_success


@pytest.mark.sampled
@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_the_server_ends_while_schemas_compile(name: str) -> None:
    command = [sys.executable, "-m", "issun", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        url = address(process)
        httpx.post(url + CHAT, json=PLAIN, timeout=30).raise_for_status()

        def ask(n: int) -> int:
            try:
                return httpx.post(url + CHAT, json=slow(n), timeout=30).status_code
            except httpx.HTTPError:
                return 0

        with ThreadPoolExecutor(6) as clients:
            asked = [clients.submit(ask, n) for n in range(6)]
            time.sleep(1.5)
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) == 2
            began = time.monotonic()
            process.send_signal(getattr(signal, name))
            process.wait(10)
            assert time.monotonic() < began + 5
            assert {each.result() for each in asked} <= {503, 0}
        time.sleep(0.5)
        alive = [child for child in children if child.is_running()]
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["oneOf", "pattern"])
def test_others_are_answered_and_the_server_ends_while_schemas_are_worked_on(name: str) -> None:
    lengths = [{"type": "string", "minLength": n, "maxLength": n} for n in range(1000)]
    schema = {"oneOf": lengths} if name == "oneOf" else {"enum": ["a" * 40], "pattern": "(a+)+b"}
    command = [sys.executable, "-m", "issun", "serve", "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        url = address(process)

        def ask(n: int) -> int:
            body = PLAIN | {"response_format": {"type": "json_schema"}}
            body["response_format"]["json_schema"] = {"schema": schema | {"title": str(n)}}
            try:
                return httpx.post(url + CHAT, json=body, timeout=60).status_code
            except httpx.HTTPError:
                return 0

        with ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(ask, n) for n in range(8)]
            time.sleep(0.5)
            assert httpx.post(url + CHAT, json=PLAIN, timeout=10).is_success
            began = time.monotonic()
            process.terminate()
            process.wait(10)
            assert time.monotonic() < began + 5
            assert {each.result() for each in asked} <= {503, 400, 0}


def address(process: subprocess.Popen[bytes]) -> str:
    """Where it answers; the rest of what it says is read too, so that it never waits."""
    found: list[str] = []

    def read(stream: Any) -> None:
        for line in stream:
            if b"http://" in line:
                found.append("http://" + line.decode().split("http://")[1].split()[0])

    for stream in (process.stdout, process.stderr):
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    end = time.monotonic() + 30
    while not found:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return found[0]
