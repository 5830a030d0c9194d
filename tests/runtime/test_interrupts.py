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

from issun.runtime import (
    BeamParams,
    Conversation,
    Model,
    ParameterError,
    SamplingParams,
    Stream,
)
from issun.runtime.decoding.generate import Segment, Stop, Timings
from issun.runtime.filling.fill import compile_schema, fill
from tests.runtime.chats import GREEDY, ROLE

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")

SHORT = SamplingParams(temperature=0, max_new_tokens=4)
LONG = SamplingParams(temperature=0, min_new_tokens=150, max_new_tokens=150)


@contextmanager
def alarm_after(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` from a signal handler after `seconds`, if the block is still running."""
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
    """Return whether an interrupt after `seconds` ended `call`."""
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


@pytest.mark.slow
def test_generate_works_after_an_interrupt_at_any_moment(model: Model) -> None:
    prompt = model.prompt("山は?")
    expected = model.generate(prompt, SHORT).ids
    usual = seconds_of(lambda: model.generate(prompt, SHORT))
    chance, count = random.Random(1), 0
    for _ in range(2000):
        count += interrupted(lambda: model.generate(prompt, SHORT), chance.uniform(1e-5, usual))
        assert model.generate(prompt, SHORT).ids == expected
    assert count > 500


@pytest.mark.slow
def test_a_conversation_continues_after_an_interrupt_at_any_moment(model: Model) -> None:
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


@pytest.mark.parametrize("what", ["score", "generate_many", "beam_search", "read_ahead"])
def test_other_work_can_continue_after_an_interrupt(model: Model, what: str) -> None:
    chat = Conversation(model, ROLE, params=SHORT)
    calls: dict[str, Callable[[], object]] = {
        "score": lambda: model.score([5, 6, 7]),
        "generate_many": lambda: model.generate_many(["山", "川"], SHORT),
        "beam_search": lambda: model.beam_search("山", BeamParams(num_beams=3, max_new_tokens=4)),
        "read_ahead": chat.read_ahead,
    }
    expected = model.score([5, 6, 7])
    usual = seconds_of(calls[what])
    chance = random.Random(3)
    for _ in range(100):
        interrupted(calls[what], chance.uniform(1e-5, max(usual, 1e-4)))
        np.testing.assert_array_equal(model.score([5, 6, 7]), expected)


@pytest.mark.sampled
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


@pytest.mark.parametrize("how", ["cancel", "close"])
def test_ended_from_a_signal_handler_while_it_is_ending(how: str) -> None:
    def segments(stop: Stop) -> Iterator[Segment]:
        try:
            yield Segment(5, "山", "length", Timings())
        finally:  # where a signal handler may run
            getattr(stream, how)()

    stream = Stream(segments, None, ends=(), pending_text=str)
    assert [segment.text for segment in stream] == ["山"]
    assert stream.completion is not None
    assert (stream.completion.text, stream.completion.finish_reason) == ("山", "length")
    assert stream.cancel() is stream.completion


def test_a_stream_that_was_interrupted_while_ending_has_no_completion() -> None:
    def segments(stop: Stop) -> Iterator[Segment]:
        try:
            yield Segment(5, "山", "length", Timings())
        finally:
            interrupt()

    stream = Stream(segments, None, ends=(), pending_text=str)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert not stream.open
    with pytest.raises(ParameterError, match="closed before its end"):
        stream.cancel()


def test_ending_a_stream_does_not_wait_for_the_running_step(scripted: Callable[..., Model]) -> None:
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


def asked_in_the_first_chunk(
    scripted: Callable[..., Model], act: Callable[[Stream], object]
) -> tuple[Model, Stream]:
    """A stream with a prompt of two chunks; `act` is called during the first one."""
    streams: list[Stream] = []

    def script(ids: list[int]) -> int:
        if len(ids) == 128:
            act(streams[0])
        return 20

    model = scripted(script)
    streams.append(model.stream([5] * 200, SamplingParams(temperature=0, max_new_tokens=3)))
    return model, streams[0]


def from_a_thread(act: Callable[[], object]) -> None:
    other = threading.Thread(target=act)
    other.start()
    other.join(10)


@pytest.mark.parametrize("how", ["cancel", "close"])
@pytest.mark.parametrize("thread", [False, True])
def test_a_cancelled_prefill_stops_between_chunks(
    scripted: Callable[..., Model], how: str, thread: bool
) -> None:
    def act(stream: Stream) -> None:
        end = getattr(stream, how)
        if how == "cancel":
            assert end() is None  # set when the iteration ends
        else:
            end()

    model, stream = asked_in_the_first_chunk(
        scripted, (lambda stream: from_a_thread(lambda: act(stream))) if thread else act
    )
    assert list(stream) == []
    assert not stream.open
    assert [len(chunk) for chunk in model.decoder.calls] == [128]  # type: ignore[attr-defined]
    if how == "cancel":
        assert stream.completion is not None
        assert (stream.completion.finish_reason, stream.completion.ids) == ("cancelled", [])
        assert stream.finish() == stream.completion
    else:
        assert stream.completion is None
    model.check_free()


def test_the_computed_part_of_a_prompt_is_kept(scripted: Callable[..., Model]) -> None:
    streams: list[Stream] = []

    def script(ids: list[int]) -> int:
        if streams[0].completion is None and len(ids) >= 128:
            streams[0].cancel()
        return model.manifest.tokens.eos or 0

    model = scripted(script)
    chat = Conversation(model, params=GREEDY)
    message = "山は?" * 45
    streams.append(chat.stream(message))
    assert streams[0].finish().ids == []
    assert chat.turns == []
    assert len(chat._cache.ids[0]) == 128
    completion = chat.reply(message)
    assert completion.timings.reused_tokens == 128
    assert len(chat.turns) == 1


def test_a_schema_filler_s_prefill_stops_between_chunks(scripted: Callable[..., Model]) -> None:
    streams: list[Stream] = []

    def script(ids: list[int]) -> int:
        if len(ids) == 128:
            streams[0].cancel()
        return 20

    model = scripted(script)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    form = compile_schema(model, schema, max_tokens=5)
    assert form is not None
    streams.append(fill(model, form, lambda line: [5] * 200, "", SHORT))
    assert streams[0].finish().finish_reason == "cancelled"
    assert len(model.decoder.calls) == 1  # type: ignore[attr-defined]
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
