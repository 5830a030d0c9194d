"""Mixed load on a real server: no request hangs or fails, and memory use stays constant."""

from __future__ import annotations

import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx
import psutil

CLIENTS = 12
STUCK = 90.0  # limit in seconds for a request; the longest answer takes some seconds
GROWTH = 1.05  # growth of memory from the first third to the end
_END = 8.0  # seconds from SIGTERM to the end
_QUESTION = [{"role": "user", "content": "日本で一番高い山は?"}]
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "tall": {"type": "boolean"}},
    "required": ["name", "tall"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "capital",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["パリ", "東京"]}}},
    },
}
_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"

# Requests: the path, and a function from a number to a body, so that bodies differ.
Ask = tuple[str, Callable[[int], dict[str, object]]]
GOOD: dict[str, Ask] = {
    "answer": (_CHAT, lambda n: {"messages": _QUESTION, "max_tokens": 1 + n % 40, "seed": n}),
    "stream": (_CHAT, lambda n: {"messages": _QUESTION, "max_tokens": 30, "stream": True}),
    "long prompt": (
        _COMPLETIONS,
        lambda n: {"prompt": f"{n}。" + "山と川。" * (n % 60), "max_tokens": 8, "stream": True},
    ),
    "several": (
        _COMPLETIONS,
        lambda n: {"prompt": "昔々", "n": 3, "max_tokens": 8, "logprobs": 5, "stream": True},
    ),
    "score": (
        _COMPLETIONS,
        lambda n: {"prompt": f"日本の{n}" * 9, "max_tokens": 0, "echo": True, "logprobs": 1},
    ),
    "choices": (_CHAT, lambda n: {"messages": _QUESTION, "choices": ["富士山", f"{n % 50}"]}),
    "regex": (_CHAT, lambda n: {"messages": _QUESTION, "regex": f"[0-9]{{{1 + n % 5}}}"}),
    "schema": (
        _CHAT,
        lambda n: {
            "messages": _QUESTION,
            "max_tokens": 60,
            "response_format": {"type": "json_schema", "json_schema": {"schema": _SCHEMA}},
        },
    ),
    "tool": (
        _CHAT,
        lambda n: {"messages": _QUESTION, "tools": [_TOOL], "tool_choice": "required"},
    ),
    "tokens": ("/tokenize", lambda n: {"prompt": "山" * (n % 300)}),
}
BAD: dict[str, Ask] = {
    "no messages": (_CHAT, lambda n: {"messages": []}),
    "a wrong type": (_CHAT, lambda n: {"messages": _QUESTION, "max_tokens": "many"}),
    "a bad regex": (_CHAT, lambda n: {"messages": _QUESTION, "regex": "("}),
    "a bad schema": (_CHAT, lambda n: {"messages": _QUESTION, "guided_json": {"type": "x"}}),
    "too long": (_COMPLETIONS, lambda n: {"prompt": "山" * 20000}),
    "no address": ("/v1/nothing", lambda n: {}),
}
LEFT = ("stream", "long prompt", "several", "schema")  # disconnects in the middle


class Client(threading.Thread):
    """Sends one request after another until the time is over."""

    def __init__(self, number: int, url: str, end: float) -> None:
        super().__init__(daemon=True)
        self._rng, self._url, self._end = random.Random(number), url, end
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.since = time.monotonic()  # when the current request was sent

    def run(self) -> None:
        """Send requests."""
        with httpx.Client(base_url=self._url, timeout=STUCK) as client:
            while time.monotonic() < self._end and len(self.faults) < 10:
                self.since = time.monotonic()
                kind = self._rng.random()
                try:
                    if kind < 0.1:
                        self._break_off()
                    elif kind < 0.25:
                        self._ask_badly(client)
                    else:
                        self._ask(client, leave=kind < 0.45)
                except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                    self.faults.append(repr(error))

    def _ask(self, client: httpx.Client, *, leave: bool) -> None:
        name = self._rng.choice(LEFT if leave else tuple(GOOD))
        path, make = GOOD[name]
        body = make(self._rng.randrange(1000)) | ({"stream": True} if leave else {})
        with client.stream("POST", path, json=body) as found:
            if found.status_code == 429:
                self.counts["full"] += 1
                time.sleep(min(2.0, float(found.headers["Retry-After"])))
                return
            if found.status_code != 200:
                found.read()
                self.faults.append(f"{name}: {found.status_code} {found.text[:300]}")
                return
            for number, line in enumerate(found.iter_lines()):
                if line.startswith("data: {") and "error" in json.loads(line[6:]):
                    self.faults.append(f"{name}: {line[:300]}")
                if leave and number > self._rng.randrange(20):
                    self.counts["left"] += 1
                    return
        self.counts[name] += 1

    def _ask_badly(self, client: httpx.Client) -> None:
        name = self._rng.choice(tuple(BAD))
        path, make = BAD[name]
        found = client.post(path, json=make(self._rng.randrange(1000)))
        if not 400 <= found.status_code < 500:
            self.faults.append(f"{name}: {found.status_code} {found.text[:300]}")
        self.counts["bad"] += 1

    def _break_off(self) -> None:
        """Send part of a request, or garbage, and disconnect."""
        address = urlsplit(self._url)
        parts = (
            b"",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
            self._rng.randbytes(200),
        )
        with socket.create_connection((address.hostname, address.port), timeout=STUCK) as found:
            found.sendall(self._rng.choice(parts))
        self.counts["broken off"] += 1


@contextmanager
def _serving(log: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = [sys.executable, "-P", "-m", "issun.cli.main", "serve", "--port", "0"]
    process = subprocess.Popen([*command, "--threads", "2", "--slots", "4"], stderr=log)
    try:
        end = time.monotonic() + 60
        while b"http://" not in (said := Path(log.name).read_bytes()):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not start: {said.decode()}")
            time.sleep(0.05)
        url = next(word for word in said.decode().split() if word.startswith("http://"))
        while True:
            with suppress(httpx.TransportError):
                httpx.get(url + "/health", timeout=5)
                break
            time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait(10)


def load(seconds: float) -> list[str]:
    """Run clients against a server for some time; returns the faults."""
    with tempfile.NamedTemporaryFile(prefix="issun-soak-") as log:
        with _serving(log) as (process, url):
            end = time.monotonic() + seconds
            clients = [Client(n, url, end) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            faults = _watch(process, url, clients, seconds)
            faults += [fault for client in clients for fault in client.faults]
            faults += _end(process, url)
        faults += [f"logged: {line}" for line in _log_lines(Path(log.name))[:5]]
    print(dict(sum((client.counts for client in clients), Counter())), flush=True)
    return faults


def _watch(
    process: subprocess.Popen[bytes], url: str, clients: list[Client], seconds: float
) -> list[str]:
    """Check memory and `/health` until all clients have ended."""
    waits: list[float] = []
    memory: list[int] = []
    server = psutil.Process(process.pid)
    with httpx.Client(base_url=url, timeout=STUCK) as health:
        while any(client.is_alive() for client in clients):
            now = time.monotonic()
            if any(client.is_alive() and now - client.since > STUCK for client in clients):
                return [f"a request took more than {STUCK:.0f} s"]
            health.get("/health").raise_for_status()
            waits.append(time.monotonic() - now)
            memory.append(server.memory_info().rss)
            time.sleep(0.25)
    waits.sort()
    third = max(1, len(memory) // 3)
    warm, last = statistics.median(memory[third : 2 * third]), statistics.median(memory[-third:])
    print(
        f"/health: median {1e3 * waits[len(waits) // 2]:.0f} ms, p99 "
        f"{1e3 * waits[len(waits) * 99 // 100]:.0f} ms; memory {warm / 1e6:.0f} -> "
        f"{last / 1e6:.0f} MB in {seconds:.0f} s",
        flush=True,
    )
    return [] if last <= GROWTH * warm else [f"memory grew from {warm:,.0f} to {last:,.0f} bytes"]


def _end(process: subprocess.Popen[bytes], url: str) -> list[str]:
    """Check that no requests are left, and that the server ends on SIGTERM."""
    deadline = time.monotonic() + 20
    while True:
        found = httpx.get(url + "/health", timeout=STUCK).json()
        if (found["running"], found["queued"]) == (0, 0):
            break
        if time.monotonic() > deadline:
            return [f"requests are left: {found}"]
        time.sleep(0.1)
    process.terminate()
    try:
        code = process.wait(_END)
    except subprocess.TimeoutExpired:
        return [f"the server has not ended {_END:.0f} s after SIGTERM"]
    return [] if code == 0 else [f"the server ended with {code}"]


def _log_lines(log: Path) -> list[str]:
    """Return the server's output except its address."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # Warnings about requests that are not HTTP are expected.
    return [line for line in lines if "http://" not in line and "Invalid HTTP request" not in line]
