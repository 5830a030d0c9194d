"""Turns, the KV cache between them, cancelling and closing."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import (
    BusyError,
    ContextError,
    Conversation,
    Model,
    ParameterError,
    SamplingParams,
    Stream,
    Turn,
)
from tests.runtime.chats import EOS, GREEDY, ROLE, fresh


@pytest.fixture(scope="module")
def folder(bundle: Callable[..., Path]) -> Path:
    return bundle("unscaled", "float32")


def prompt_of(model: Model, chat: Conversation, message: str) -> list[int]:
    fitted = model.prompts.chat(chat.role, chat.turns, message, max_new_tokens=12)
    return fitted.ids


def common_prefix(one: list[int], other: list[int]) -> list[int]:
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]


# --- turns and the cache ---


def test_reply_adds_the_turn(chat: Conversation) -> None:
    completion = chat.reply("山は?")
    assert completion.text
    assert str(completion) == completion.text
    assert chat.turns == [Turn("山は?", completion.text)]


def test_stream_joins_to_the_reply(chat: Conversation, model: Model) -> None:
    stream = chat.stream("山は?")
    text = "".join(segment.text for segment in stream)
    assert stream.completion is not None
    assert text == stream.completion.text == fresh(chat, []).reply("山は?").text
    assert model.tokenizer.decode(stream.completion.ids).removesuffix(r"\n") == text


def test_the_prefix_is_reused_and_gives_the_same_answer(chat: Conversation, model: Model) -> None:
    assert chat.reply("山は?").timings.reused_tokens == 0
    for message in ("川は?", "海は?"):
        before, turns = list(chat._cache.ids[0]), list(chat.turns)
        prompt = prompt_of(model, chat, message)
        shared = len(common_prefix(before, prompt))
        completion = chat.reply(message)
        assert completion.timings.reused_tokens == shared > 40
        assert completion.timings.prompt_tokens == len(prompt)
        alone = fresh(chat, turns).reply(message)
        assert alone.timings.reused_tokens == 0
        assert (completion.text, completion.ids) == (alone.text, alone.ids)


def test_role_as_one_text_uses_the_template_s_system_lines(model: Model) -> None:
    assert Conversation(model, "短く。").role == ["User:短く。", "Assistant:了解しました。"]
    assert Conversation(model, " ").role == []
    assert Conversation(model, ROLE).role == ROLE


def test_dropped_turns_are_reported_and_kept(chat: Conversation) -> None:
    dropped = []
    for i in range(8):
        completion = chat.reply(f"問{i}は何ですか?")
        dropped.append(completion.dropped_turns)
    assert dropped[0] == 0
    assert dropped[-1] > 0
    assert dropped == sorted(dropped)
    assert [turn.message for turn in chat.turns] == [f"問{i}は何ですか?" for i in range(8)]
    assert chat.stream("次").dropped_turns >= dropped[-1]


@pytest.mark.parametrize("give_up", [Stream.close, Stream.cancel])
def test_an_abandoned_long_message_drops_no_turns(
    model: Model, give_up: Callable[[Stream], object]
) -> None:
    chat = Conversation(model, ROLE, params=replace(GREEDY, max_new_tokens=2))
    for _ in range(3):
        chat.reply("山は?")
    room = model.decoder.n_positions - len(prompt_of(model, fresh(chat, []), "山")) - 20
    stream = chat.stream("山" * room)
    assert stream.dropped_turns > 0
    give_up(stream)
    assert chat.stream("山は?").dropped_turns == 0


def test_a_continued_answer_reports_dropped_turns(chat: Conversation) -> None:
    dropped = 0
    while not dropped:
        completion = chat.reply("山は?")
        dropped = completion.dropped_turns
    assert completion.finish_reason == "length"
    assert chat.resume().dropped_turns == dropped


def test_a_full_context_is_prefilled_again_only_every_few_turns(model: Model) -> None:
    chat = Conversation(model, ROLE, params=replace(GREEDY, max_new_tokens=1))
    fitted = []
    for _ in range(24):
        completion = chat.reply("山は?")
        fitted.append(completion.dropped_turns)
        chat.turns[-1] = Turn("山は?", "富士山です。" * 2)  # of one length, whatever was sampled
    drops = [after - before for before, after in pairwise(fitted) if after != before]
    assert drops
    assert min(drops) > 1
    assert len(drops) <= (24 - fitted.count(0)) / 2 + 1


def test_a_role_that_is_too_long_changes_nothing(chat: Conversation, model: Model) -> None:
    chat.reply("山は?")
    chat.role = ["User:" + "長い" * 300]
    with pytest.raises(ContextError, match="context of 256"):
        chat.reply("川は?")
    assert len(chat.turns) == 1
    model.check_free()


@pytest.mark.parametrize("message", ["", "  ", "\n"])
def test_an_empty_message_is_refused(chat: Conversation, model: Model, message: str) -> None:
    with pytest.raises(ParameterError, match="message is empty"):
        chat.reply(message)
    assert chat.turns == []
    model.check_free()


def test_an_answer_that_ends_at_once_is_an_empty_turn(scripted: Callable[..., Model]) -> None:
    chat = Conversation(scripted(lambda ids: EOS), params=GREEDY)
    completion = chat.reply("山は?")
    assert (completion.text, completion.ids, completion.finish_reason) == ("", [], "stop")
    assert chat.turns == [Turn("山は?", "")]


# --- one caller at a time, closing, forgetting, interrupting ---


def test_busy_while_a_stream_is_open(chat: Conversation, model: Model, tmp_path: Path) -> None:
    chat.reply("山は?")
    other = Conversation(model, params=GREEDY)
    saved = tmp_path / "saved.json"
    chat.save(saved)
    stream = chat.stream("川は?")
    next(stream)
    for call in (
        lambda: chat.reply("海は?"),
        lambda: other.reply("海は?"),
        lambda: model.generate("海"),
        lambda: model.stream([5]),
        lambda: model.score([5]),
        chat.undo,
        chat.reset,
        chat.retry,
        lambda: chat.load(saved),
    ):
        with pytest.raises(BusyError):
            call()
    assert [turn.message for turn in chat.turns] == ["山は?"]
    # The refused calls have not disturbed the one in progress.
    assert stream.finish().text == fresh(chat, chat.turns[:1]).reply("川は?").text
    assert other.reply("海は?").text


@pytest.mark.parametrize("how", ["close", "forget"])
def test_an_abandoned_stream_frees_the_model_and_rewinds(
    chat: Conversation, model: Model, how: str
) -> None:
    chat.reply("山は?")
    before, turns = list(chat._cache.ids[0]), list(chat.turns)
    stream = chat.stream("川は?")
    for _ in range(4):
        next(stream)
    during = list(chat._cache.ids[0])
    if how == "close":
        stream.close()
        assert list(stream) == []
        with pytest.raises(ParameterError, match="closed before its end"):
            stream.finish()
    else:
        del stream
        gc.collect()
    model.check_free()
    assert chat.turns == turns
    kept = chat._cache.ids[0]
    assert kept == common_prefix(before, during)
    assert chat.reply("海は?").text == fresh(chat, turns).reply("海は?").text


def test_a_stream_that_was_never_read_frees_the_model(chat: Conversation, model: Model) -> None:
    stream = chat.stream("川は?")
    with pytest.raises(BusyError):
        model.check_free()
    stream.close()
    model.check_free()


def test_cancel_keeps_the_text_so_far(chat: Conversation, model: Model) -> None:
    whole = fresh(chat, []).reply("山は?")
    stream = chat.stream("山は?")
    seen = [next(stream) for _ in range(3)]
    completion = stream.cancel()
    assert completion.finish_reason == "cancelled"
    assert completion.ids == whole.ids[:3] == [s.id for s in seen]
    assert completion.timings.new_tokens == 3
    assert whole.text.startswith(completion.text)
    assert chat.turns == [Turn("山は?", completion.text)]
    assert stream.cancel() is completion
    assert list(stream) == []
    model.check_free()


def test_cancel_before_the_first_token_adds_nothing(chat: Conversation) -> None:
    completion = chat.stream("山は?").cancel()
    assert (completion.text, completion.ids) == ("", [])
    assert chat.turns == []


def test_cancel_keeps_text_that_was_held_for_a_stop_string(
    chat: Conversation, model: Model
) -> None:
    whole = fresh(chat, []).reply("山は?")
    decode = model.tokenizer.decode
    stop = decode(whole.ids[:4])[len(decode(whole.ids[:3])) :] + "続かない"
    params = SamplingParams(temperature=0, max_new_tokens=12, stop=(stop,))
    stream = chat.stream("山は?", params)
    shown = "".join(next(stream).text for _ in range(4))
    completion = stream.cancel()
    assert shown == decode(whole.ids[:3])
    assert completion.text == decode(whole.ids[:4]) != shown
    chat.resume(SamplingParams(temperature=0, max_new_tokens=8)).finish()
    assert chat.turns == [Turn("山は?", whole.text)]


@pytest.mark.parametrize("tokens", [0, 2])
def test_interrupted_then_cancelled(scripted: Callable[..., Model], tokens: int) -> None:
    calls = 0

    def script(ids: list[int]) -> int:
        nonlocal calls
        calls += 1
        if calls == tokens + 1:
            raise KeyboardInterrupt
        return 20 + calls

    model = scripted(script)
    chat = Conversation(model, params=GREEDY)
    stream = chat.stream("山は?")
    with pytest.raises(KeyboardInterrupt):
        stream.finish()
    assert stream.open
    with pytest.raises(BusyError):
        chat.reply("川は?")
    completion = stream.cancel()
    assert completion.finish_reason == "cancelled"
    assert completion.ids == list(range(21, 21 + tokens))
    assert [turn.reply for turn in chat.turns] == [completion.text] * (tokens > 0)
    assert len(chat.reply("海は?").ids) == 12


def test_an_error_in_the_middle_frees_the_model(scripted: Callable[..., Model]) -> None:
    def script(ids: list[int]) -> int:
        raise RuntimeError("a broken graph")

    model = scripted(script)
    chat = Conversation(model, params=GREEDY)
    with pytest.raises(RuntimeError, match="broken"):
        chat.reply("山は?")
    assert chat.turns == []
    model.check_free()


def test_a_closed_model_reports_that_it_is_closed(folder: Path) -> None:
    with Model.load(folder, threads=1) as model:
        chat = Conversation(model, params=GREEDY)
        stream = chat.stream("山は?")
        next(stream)
    assert not stream.open
    for call in (
        lambda: chat.reply("川は?"),
        lambda: Conversation(model),
        lambda: model.generate("川"),
        lambda: model.score([5]),
    ):
        with pytest.raises(ParameterError, match="model is closed"):
            call()
    model.close()  # closing again is harmless


def test_stopped_before_the_answer_began_changes_nothing(chat: Conversation) -> None:
    chat.reply("一つ目", replace(GREEDY, max_new_tokens=2))
    turns = list(chat.turns)
    for start in (lambda: chat.stream("二つ目"), chat.retry):
        completion = start().cancel()
        assert (completion.text, completion.finish_reason) == ("", "cancelled")
        assert chat.turns == turns
    assert chat.resume().finish().ids  # the truncated answer can still be continued


def test_scores_of_two_threads_are_right_or_refused(folder: Path) -> None:
    with Model.load(folder, threads=1) as model:
        ids = list(range(20, 140))
        expected = model.score(ids)
        results: list[bool | None] = []

        def work() -> None:
            for _ in range(20):
                try:
                    results.append(bool(np.array_equal(model.score(ids), expected)))
                except BusyError:
                    results.append(None)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 40
        assert False not in results
        assert True in results


def test_segments_keep_their_own_timings(chat: Conversation) -> None:
    counts = [segment.timings.new_tokens for segment in chat.stream("山は?")]
    assert counts == list(range(1, len(counts) + 1))
    assert len(counts) > 1


def test_closing_the_model_frees_a_conversation_s_session(folder: Path) -> None:
    model = Model.load(folder, threads=1)
    chat = Conversation(model, params=GREEDY)
    chat.reply("山は?")
    session = weakref.ref(model.decoder.session)
    model.close()
    gc.collect()
    assert session() is None
