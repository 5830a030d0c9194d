"""Many clients at a time, some of whom leave: nobody gets another's text, and memory stays flat.

`ISSUN_TEST_LOAD_SECONDS=120` makes it the long run.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from issun.runtime import Model, SamplingParams
from tests.server.conftest import Running, running

SECONDS = float(os.environ.get("ISSUN_TEST_LOAD_SECONDS", "6"))
CLIENTS, QUESTIONS, TOKENS = 64, 40, 24


class Client(threading.Thread):
    """Asks until the time is over; every fourth answer is left in the middle."""

    def __init__(self, number: int, server: Running, expected: list[str], end: float) -> None:
        super().__init__(daemon=True)
        self._rng, self._server = random.Random(number), server
        self._expected, self._end = expected, end
        self.waits: list[float] = []
        self.whole = self.left = self.full = 0
        self.faults: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            while time.monotonic() < self._end and not self.faults:
                try:
                    self._ask(client, self._rng.randrange(QUESTIONS), self._rng.random() < 0.25)
                except Exception as error:
                    self.faults.append(repr(error))

    def _ask(self, client: httpx.Client, number: int, leaves: bool) -> None:
        started, text = time.monotonic(), ""
        with client.stream("POST", "/v1/completions", json=body(number)) as found:
            if found.status_code == 429:
                self.full += 1
                time.sleep(min(2.0, float(found.headers["Retry-After"])))
                return
            found.raise_for_status()
            for line in found.iter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(chunk)
                if not text:
                    self.waits.append(time.monotonic() - started)
                text += chunk["choices"][0]["text"]
                if leaves and len(text) > 8:
                    self.left += 1
                    return
        self.whole += 1
        if text != self._expected[number]:
            self.faults.append(f"{number}: {text!r} is not {self._expected[number]!r}")


def prompt_of(number: int) -> str:
    return f"第{number}章。" + "昔々あるところに、おじいさんとおばあさんが住んでいました。" * (
        1 + number % 4
    )


def body(number: int) -> dict[str, object]:
    return {
        "prompt": prompt_of(number),
        "max_tokens": TOKENS,
        "temperature": 0.7,
        "seed": number,
        "stream": True,
    }


@pytest.mark.slow
def test_many_clients_get_their_own_answers(ja_small: Callable[..., Path]) -> None:
    # With these steps and prefills agree, so that an answer does not depend on what was reused.
    with Model.load(ja_small("int8", kv_cache="int8"), kv_cache="int8") as model:
        expected = [
            model.generate(
                prompt_of(n), SamplingParams(temperature=0.7, seed=n, max_new_tokens=TOKENS)
            ).text
            for n in range(QUESTIONS)
        ]
        with running(model, slots=16, max_queue=32) as server:
            clients, memory = _load(server, expected)
            health = server.get("/health").json()
            assert (health["queued"], health["running"]) == (0, 0)
    faults = [fault for client in clients for fault in client.faults]
    assert faults == []
    assert sum(client.whole for client in clients) > CLIENTS / 4
    assert sum(client.left for client in clients) > 0
    waits = [wait for client in clients for wait in client.waits]
    print(
        f"{sum(c.whole for c in clients)} whole, {sum(c.left for c in clients)} left, "
        f"{sum(c.full for c in clients)} refused; first token: median {np.median(waits):.2f} s, "
        f"p95 {np.quantile(waits, 0.95):.2f} s; memory {memory[0] / 1e6:.0f} -> "
        f"{max(memory) / 1e6:.0f} MB"
    )
    if SECONDS >= 60:  # a short run is all warm-up
        assert max(memory) <= 1.05 * memory[0]


def _load(server: Running, expected: list[str]) -> tuple[list[Client], list[float]]:
    """Let the clients ask, and look at the server's memory from a quarter of the time on."""
    started = time.monotonic()
    clients = [Client(n, server, expected, started + SECONDS) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(SECONDS / 4)
    memory = []
    while any(client.is_alive() for client in clients):
        memory.append(float(server.get("/health").json()["memory_bytes"]))
        time.sleep(0.5)
    return clients, memory
