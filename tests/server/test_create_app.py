"""`create_app`, for servers other than `issun serve`."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import httpx
import pytest
from starlette.testclient import TestClient

from issun.runtime import BundleError, ParameterError
from issun.server import create_app

CHAT = {"messages": [{"role": "user", "content": "日本で一番高い山は?"}], "temperature": 0}


def test_it_answers() -> None:
    app = create_app(threads=1, slots=2)
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/v1/chat/completions", json=CHAT).json()
        assert "富士山" in answer["choices"][0]["message"]["content"]
        assert client.get("/health").json()["status"] == "ok"


def test_uvicorn_makes_it_in_workers_of_its_own() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = ["-m", "uvicorn", "--factory", "issun.server:create_app", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, *command, "--log-level", "error"], stderr=subprocess.PIPE
    )
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60)
                break
            except httpx.ConnectError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert errors == b""


def test_wrong_arguments() -> None:
    with pytest.raises(ParameterError, match="slots is 0"):
        create_app(slots=0)
    with pytest.raises(BundleError, match="There is no folder nowhere"):
        create_app("nowhere")
    with pytest.raises(TypeError):
        create_app(slot=1)
