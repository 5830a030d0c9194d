"""Streams that nobody reads: what waits for them is bounded, and they are given up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
import pytest

from issun.server import answers
from issun.server.options import ServerOptions
from issun.server.serve import _listen
from tests.server import conftest
from tests.server.conftest import Running, embedded_server

CHAT = {"messages": [{"role": "user", "content": "山"}], "temperature": 1.5}
MANY = {"n": 8, "logprobs": True, "top_logprobs": 20, "min_tokens": 200, "max_tokens": 200}
LONG = {"ignore_eos": True, "max_tokens": 200}
STREAMS = [
    ("/v1/chat/completions", CHAT | MANY),
    ("/v1/completions", {"prompt": "山", "n": 8, "logprobs": 5} | LONG),
    ("/v1/completions", {"prompt": ["山", "川", "海", "空"], "n": 2} | LONG),
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    def listen(options: ServerOptions) -> socket.socket:
        listener = _listen(options)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections have it
        return listener

    monkeypatch.setattr(conftest, "_listen", listen)
    monkeypatch.setattr(answers, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(answers, "STALL_EVENTS", 64)
    with embedded_server(body_timeout=2.0, deadline=60) as found:
        yield found


@contextmanager
def stream(server: Running, path: str, body: Any) -> Iterator[socket.socket]:
    """A stream whose reader has little room and takes nothing of its own accord."""
    address = httpx.URL(server.url)
    sent = json.dumps(body | {"stream": True}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(sent)}\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((address.host, address.port))
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + sent)
        yield connection


def figure(server: Running, name: str) -> float:
    lines = server.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def ends() -> set[int]:
    """The ports from which this process's servers are connected to."""
    return {found.raddr.port for found in psutil.Process().net_connections() if found.raddr}


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.sampled
@pytest.mark.parametrize(("path", "body"), STREAMS)
def test_streams_that_nobody_reads_are_given_up(
    impatient: Running, path: str, body: dict[str, Any]
) -> None:
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(stream(impatient, path, body))
        until(lambda: figure(impatient, "issun_unread_streams_total") == 3)
        scheduler = impatient.service.scheduler
        until(lambda: not scheduler.running + scheduler.queued)
        assert impatient.post("/v1/completions", {"prompt": "山", "max_tokens": 2}).is_success


@pytest.mark.slow
def test_their_connections_end_too(impatient: Running) -> None:
    with stream(impatient, *STREAMS[0]) as connection:
        until(lambda: figure(impatient, "issun_unread_streams_total") == 1)
        port = connection.getsockname()[1]
        until(lambda: port not in ends())


@pytest.mark.slow
def test_a_slow_reader_gets_all(impatient: Running) -> None:
    got = b""
    with stream(impatient, *STREAMS[0]) as connection:
        while b"data: [DONE]" not in got[-100:]:
            piece = connection.recv(1 << 16)
            assert piece
            got += piece
            time.sleep(0.001)
    assert got.count(b'"finish_reason":"length"') == 8
    assert figure(impatient, "issun_unread_streams_total") == 0


def test_what_waits_is_bounded_whatever_is_taken(
    impatient: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_EVENTS", 300)
    monkeypatch.setattr(answers, "STALL_SECONDS", 1000.0)
    with stream(impatient, *STREAMS[0]) as connection:
        end = time.monotonic() + 30
        while figure(impatient, "issun_unread_streams_total") < 1:
            assert time.monotonic() < end
            connection.recv(64)  # a drop now and then
            time.sleep(0.1)


@pytest.mark.slow
def test_a_short_stream_may_wait(impatient: Running) -> None:
    with stream(impatient, "/v1/completions", {"prompt": "山", "max_tokens": 3}) as connection:
        time.sleep(2.5)
        got = b""
        while b"[DONE]" not in got:
            got += connection.recv(1 << 16)
    assert figure(impatient, "issun_unread_streams_total") == 0
