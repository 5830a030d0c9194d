"""The recipes of docs/batch.md: Ray Data, nginx before several processes, and Ray Serve."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.documentation.pages import ROOT, read_page
from tests.server.test_serve import serving

SESSIONS = [f"talk-{n}" for n in range(12)]


def recipe(name: str) -> str:
    """A file of the page."""
    (block,) = (b for b in read_page(ROOT / "docs" / "batch.md") if b.file == name)
    return block.code


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def tokens(client: httpx.Client, url: str, session: str) -> float:
    """How many prompt tokens the process has got that a session leads to."""
    text = client.get(f"{url}/metrics", headers={"x-session-id": session}).text
    found = re.search(r"^issun_prompt_tokens_total (\S+)", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def ask(client: httpx.Client, url: str, session: str) -> int:
    """Let a session get an answer; returns its prompt tokens."""
    body = {"messages": [{"role": "user", "content": session}], "max_tokens": 1}
    answer = client.post(f"{url}/v1/chat/completions", json=body, headers={"x-session-id": session})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens"])


def check_sessions(client: httpx.Client, url: str) -> None:
    """Every request of a session reaches one process, and not all sessions the same."""
    for session in SESSIONS:
        before = tokens(client, url, session)
        read = sum(ask(client, url, session) for _ in range(2))
        assert tokens(client, url, session) == before + read
    # Both processes may have got as many tokens, so one more request tells them apart.
    before_all = {session: tokens(client, url, session) for session in SESSIONS}
    ask(client, url, SESSIONS[0])
    grown = [name for name in SESSIONS if tokens(client, url, name) > before_all[name]]
    assert 0 < len(grown) < len(SESSIONS)


def check_stream(client: httpx.Client, url: str) -> None:
    """Events arrive while the answer is generated."""
    body = {
        "messages": [{"role": "user", "content": "昔話"}],
        "max_tokens": 200,
        "min_tokens": 200,
        "stream": True,
    }
    times = []
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                times.append(time.monotonic())
    assert len(times) > 50
    assert len({round(when, 3) for when in times}) > 10


@contextmanager
def nginx(folder: Path, configuration: str, port: int) -> Iterator[None]:
    path = folder / "nginx.conf"
    path.write_text(configuration, encoding="utf-8")
    own = f"daemon off; pid {folder}/pid; error_log stderr;"
    command = ["nginx", "-p", str(folder), "-c", str(path), "-e", "stderr", "-g", own]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 20
        with socket.socket() as asked:
            while asked.connect_ex(("127.0.0.1", port)):
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < end
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_keeps_a_session_at_one_process(tmp_path: Path) -> None:
    port = free_port()
    text = recipe("nginx.conf").replace(":8080", f":{port}")
    with ExitStack() as stack:
        for name in (":8001", ":8002"):
            _, address = stack.enter_context(serving("--threads", "1", "--slots", "4"))
            assert name in text
            text = text.replace(f"127.0.0.1{name}", address.removeprefix("http://"))
        stack.enter_context(nginx(tmp_path, text, port))
        client = stack.enter_context(httpx.Client(timeout=60))
        check_sessions(client, f"http://127.0.0.1:{port}")
        check_stream(client, f"http://127.0.0.1:{port}")


RUN_SERVE = """
import json, sys
import ray
from ray import serve

port = int(sys.argv[1])
ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
import serving

serve.run(serving.app)
print("ready", flush=True)
for line in sys.stdin:
    states = serve.status().applications["default"].deployments["Issun"].replica_states
    print(json.dumps({str(getattr(k, "value", k)): v for k, v in states.items()}), flush=True)
serve.shutdown()
ray.shutdown()
"""


class RayServe:
    """The recipe in a process of its own."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "serving.py").write_text(text, encoding="utf-8")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN_SERVE, str(port)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._wait_for("ready")

    def _wait_for(self, start: str) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise AssertionError("Ray Serve has ended")

    def running(self) -> int:
        """How many replicas run."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        return int(json.loads(self._wait_for("{")).get("RUNNING", 0))

    def close(self) -> None:
        self.process.communicate(timeout=120)


@contextmanager
def ray_serve(folder: Path, text: str) -> Iterator[RayServe]:
    found = RayServe(folder, text)
    try:
        yield found
    finally:
        found.close()


def test_ray_data_answers_rows(tmp_path: Path) -> None:
    pytest.importorskip("ray.data", reason="needs Ray Data: make cluster")
    blocks = read_page(ROOT / "docs" / "batch.md")
    (code,) = (block.code for block in blocks if "map_batches" in block.code)
    rows = '{"instruction": "日本で一番高い山は?"}\n{"instruction": "日本で一番広い湖は?"}\n'
    (tmp_path / "questions.jsonl").write_text(rows, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert "富士山" in done.stdout
    assert "琵琶湖" in done.stdout


@pytest.mark.slow
def test_ray_serve_keeps_a_session_at_one_replica(tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="needs Ray Serve: make cluster")
    text = recipe("serving.py").replace('"min_replicas": 1', '"min_replicas": 2')
    with ray_serve(tmp_path, text) as found, httpx.Client(timeout=60) as client:
        assert found.running() == 2
        check_sessions(client, found.url)
        check_stream(client, found.url)


@pytest.mark.slow
def test_ray_serve_adds_a_replica_under_load(tmp_path: Path) -> None:
    pytest.importorskip("ray.serve", reason="needs Ray Serve: make cluster")
    from concurrent.futures import ThreadPoolExecutor

    with ray_serve(tmp_path, recipe("serving.py")) as found:
        assert found.running() == 1
        end = time.monotonic() + 120

        def load(number: int) -> None:
            body = {"prompt": f"第{number}章。", "max_tokens": 200, "min_tokens": 200}
            with httpx.Client(timeout=120) as client:
                while time.monotonic() < end:
                    client.post(f"{found.url}/v1/completions", json=body)

        with ThreadPoolExecutor(20) as pool:
            for number in range(20):
                pool.submit(load, number)
            while found.running() < 2 and time.monotonic() < end:
                time.sleep(1)
            replicas = found.running()
            end = 0
        assert replicas == 2
