"""What a constraint lets come next is worked out beside the answers of others."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from issun.runtime.constraint.matching import Matcher
from issun.server import scheduler
from tests.server.conftest import Running, embedded_server

CHAT = "/v1/chat/completions"
PREPARE = Matcher.prepare
PLAIN = {"messages": [{"role": "user", "content": "山"}], "max_tokens": 30, "temperature": 0}
REGEX = PLAIN | {"structured_outputs": {"regex": "[0-9]{3}-[0-9]{4}"}}
FORMS: list[dict[str, Any]] = [
    {"structured_outputs": {"regex": "[0-9]{3}-[0-9]{4}"}},
    {"structured_outputs": {"choice": ["富士山です", "北岳です"]}},
    {"response_format": {"type": "json_object"}, "max_tokens": 20},
    {"structured_outputs": {"regex": "[あ-ん]{4,9}"}},
]


def text(server: Running, body: Any) -> str:
    found = server.post(CHAT, body)
    assert found.is_success, found.text
    return str(found.json()["choices"][0]["message"]["content"])


def test_others_do_not_wait_and_it_goes_on_as_if_nothing_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "MASK_SECONDS", 60.0)
    blocked, free = threading.Event(), threading.Event()

    def prepare(self: Matcher, answer: Sequence[int]) -> None:
        if len(answer) in (0, 2):  # before the first token, and in the middle
            blocked.set()
            assert free.wait(60)
        PREPARE(self, answer)

    with embedded_server(slots=4) as server, ThreadPoolExecutor(1) as client:
        wanted, plain = text(server, REGEX), text(server, PLAIN)
        monkeypatch.setattr(Matcher, "prepare", prepare)
        for _ in range(2):
            free.clear()
            blocked.clear()
            asked = client.submit(text, server, REGEX)
            assert blocked.wait(60)
            assert [text(server, PLAIN) for _ in range(3)] == [plain] * 3
            assert not asked.done()
            free.set()
            assert asked.result() == wanted


def test_answers_are_the_same_whenever_constraints_are_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bodies = [PLAIN, *(PLAIN | form for form in FORMS)]
    bodies += [body | {"temperature": 1.2, "seed": seed} for body in bodies for seed in (1, 2)]
    chance = random.Random(1)

    def prepare(self: Matcher, answer: Sequence[int]) -> None:
        time.sleep(chance.choice([0, 0, 0, 0.03, 0.12]))
        PREPARE(self, answer)

    with embedded_server(slots=5) as server, ThreadPoolExecutor(8) as clients:
        wanted = [text(server, body) for body in bodies]
        monkeypatch.setattr(Matcher, "prepare", prepare)
        assert list(clients.map(text, [server] * len(bodies), bodies)) == wanted


def test_one_that_takes_too_long_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "MASK_SECONDS", 0.3)
    never = threading.Event()

    def prepare(self: Matcher, answer: Sequence[int]) -> None:
        if len(answer) == 3:
            never.wait(600)
        PREPARE(self, answer)

    with embedded_server(slots=2) as server:
        plain, wanted = text(server, PLAIN), text(server, REGEX)
        monkeypatch.setattr(Matcher, "prepare", prepare)
        for form in ("regex", "json"):
            value: Any = r"[0-9]{9}" if form == "regex" else {"type": "array", "minItems": 5}
            found = server.post(CHAT, PLAIN | {"structured_outputs": {form: value}})
            assert found.status_code == 400
            assert "more than 0.3 s for one token" in found.json()["error"]["message"]
            assert text(server, PLAIN) == plain
        monkeypatch.setattr(Matcher, "prepare", PREPARE)
        assert text(server, REGEX) == wanted
    # and the server has ended, though threads still work
