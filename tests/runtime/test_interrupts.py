"""Ctrl-C at any moment, and streams that are ended from other threads and signal handlers."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import Conversation, Model, ParameterError, SamplingParams, Stream
from tests.runtime.chats import GREEDY, ROLE

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")

SHORT = SamplingParams(temperature=0, max_new_tokens=4)
LONG = SamplingParams(temperature=0, min_new_tokens=150, max_new_tokens=150)


@contextmanager
def alarm_after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` from a signal handler after `seconds`, if the block still runs."""
    before = signal.signal(signal.SIGALRM, lambda *_: act())
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(call: Callable[[], object], seconds: float) -> bool:
    """Whether an interrupt after `seconds` has ended `call`."""
    try:
        with alarm_after(seconds, interrupt):
            call()
    except KeyboardInterrupt:
        return True
    return False


def seconds_of(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_generate_works_after_an_interrupt_at_any_moment(model: Model) -> None:
    prompt = model.prompt("山は?")
    expected = model.generate(prompt, SHORT).ids
    usual = seconds_of(lambda: model.generate(prompt, SHORT))
    chance, count = random.Random(1), 0
    for _ in range(1500):
        count += interrupted(lambda: model.generate(prompt, SHORT), chance.uniform(1e-5, usual))
        assert model.generate(prompt, SHORT).ids == expected
    assert count > 500


def test_a_conversation_goes_on_after_an_interrupt_at_any_moment(model: Model) -> None:
    def asked_anew(chat: Conversation) -> str:
        other = Conversation(model, ROLE, params=SHORT)
        other.turns = list(chat.turns)
        return other.reply("川は?").text

    usual = seconds_of(lambda: Conversation(model, ROLE, params=SHORT).reply("山は?"))
    chance, count = random.Random(2), 0
    for _ in range(250):
        chat = Conversation(model, ROLE, params=SHORT)
        count += interrupted(lambda c=chat: c.reply("山は?"), chance.uniform(1e-5, usual))  # type: ignore[misc]
        assert len(chat.turns) <= 1
        assert chat.reply("川は?").text == asked_anew(chat_without_last(chat))
    assert count > 80


def chat_without_last(chat: Conversation) -> Conversation:
    chat.turns.pop()
    return chat


@pytest.mark.parametrize("what", ["score", "generate_many", "read_ahead"])
def test_other_work_is_free_to_go_on_after_an_interrupt(model: Model, what: str) -> None:
    chat = Conversation(model, ROLE, params=SHORT)
    calls: dict[str, Callable[[], object]] = {
        "score": lambda: model.score([5, 6, 7]),
        "generate_many": lambda: model.generate_many(["山", "川"], SHORT),
        "read_ahead": chat.read_ahead,
    }
    expected = model.score([5, 6, 7])
    usual = seconds_of(calls[what])
    chance = random.Random(3)
    for _ in range(100):
        interrupted(calls[what], chance.uniform(1e-5, max(usual, 1e-4)))
        np.testing.assert_array_equal(model.score([5, 6, 7]), expected)


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_ended_from_another_thread(model: Model, how: str) -> None:
    expected = model.generate(model.prompt("山は?"), LONG)
    chance = random.Random(4)
    cut = 0
    for _ in range(200):
        stream = model.stream(model.prompt("山は?"), LONG)
        other = threading.Timer(chance.uniform(0, 0.02), getattr(stream, how))
        other.start()
        seen = [segment.id for segment in stream]
        other.join()
        assert not stream.open
        if len(seen) < 150:
            cut += 1
            check_ended(stream, how, seen, expected.ids)
        model.check_free()
    assert cut > 100
    assert model.generate(model.prompt("山は?"), LONG).ids == expected.ids


def check_ended(stream: Stream, how: str, seen: list[int], expected: list[int]) -> None:
    if how == "close":
        assert stream.completion is None
        return
    assert stream.completion is not None
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.ids == seen == expected[: len(seen)]


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_ended_from_a_signal_handler(model: Model, how: str) -> None:
    expected = model.generate(model.prompt("山は?"), LONG).ids
    chance = random.Random(5)
    for _ in range(100):
        stream = model.stream(model.prompt("山は?"), LONG)
        with alarm_after(chance.uniform(1e-5, 0.02), getattr(stream, how)):
            seen = [segment.id for segment in stream]
        assert not stream.open
        if len(seen) < 150:
            check_ended(stream, how, seen, expected)
        model.check_free()


def test_a_step_that_runs_is_not_waited_for(scripted: Callable[..., Model]) -> None:
    running, go_on = threading.Event(), threading.Event()

    def script(ids: list[int]) -> int:
        running.set()
        go_on.wait(10)
        return 20

    model = scripted(script)
    stream = Conversation(model, params=GREEDY).stream("山は?")
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(s.id for s in stream))
    reader.start()
    running.wait(10)
    assert stream.cancel() is None
    assert stream.open  # the step has not ended yet
    go_on.set()
    reader.join(10)
    assert seen == [20]
    assert stream.completion is not None
    assert stream.completion.ids == [20]
    model.check_free()


def test_a_model_that_is_closed_while_it_answers(folder: Path) -> None:
    for seed in range(20):
        model = Model.load(folder, threads=1)
        stream = model.stream([5, 6], LONG)
        other = threading.Timer(random.Random(seed).uniform(0, 0.02), model.close)
        other.start()
        ids = [segment.id for segment in stream]
        other.join()
        model.close()
        assert len(ids) <= 150
        assert not hasattr(model, "decoder")
        with pytest.raises(ParameterError, match="closed"):
            model.generate([5])
