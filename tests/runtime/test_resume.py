"""Continuing an answer, retrying, undoing turns and resetting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from issun.runtime import (
    ContextError,
    Conversation,
    ConversationError,
    Model,
    SamplingParams,
    Turn,
)
from tests.runtime.chats import EOS, GREEDY, ROLE, fresh


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_resume_gives_the_uncut_answer(chat: Conversation, cut: int) -> None:
    whole = fresh(chat, []).reply("山は?")
    first = chat.reply("山は?", SamplingParams(temperature=0, max_new_tokens=cut))
    assert first.finish_reason == "length"
    rest = chat.resume(SamplingParams(temperature=0, max_new_tokens=12 - cut)).finish()
    assert first.ids + rest.ids == whole.ids
    assert first.text + rest.text == whole.text
    assert chat.turns == [Turn("山は?", whole.text)]
    # The prompt and all but the last token of the answer are reused.
    assert rest.timings.reused_tokens == rest.timings.prompt_tokens - 1


def test_resume_again_and_again(chat: Conversation) -> None:
    whole = fresh(chat, []).reply("山は?")
    one = SamplingParams(temperature=0, max_new_tokens=1)
    texts = [chat.reply("山は?", one).text]
    texts += [chat.resume(one).finish().text for _ in range(11)]
    assert "".join(texts) == whole.text == chat.turns[0].reply
    assert len(chat.turns) == 1


def test_resume_after_cancel(chat: Conversation) -> None:
    whole = fresh(chat, []).reply("山は?")
    stream = chat.stream("山は?")
    for _ in range(5):
        next(stream)
    first = stream.cancel()
    rest = chat.resume(SamplingParams(temperature=0, max_new_tokens=7)).finish()
    assert first.text + rest.text == whole.text == chat.turns[0].reply


def test_an_abandoned_resume_leaves_the_answer_unchanged(chat: Conversation) -> None:
    first = chat.reply("山は?", SamplingParams(temperature=0, max_new_tokens=4))
    stream = chat.resume()
    next(stream)
    stream.close()
    assert chat.turns == [Turn("山は?", first.text)]
    whole = fresh(chat, []).reply("山は?", SamplingParams(temperature=0, max_new_tokens=16))
    chat.resume().finish()
    assert chat.turns == [Turn("山は?", whole.text)]


def test_resume_needs_a_truncated_answer(
    chat: Conversation, scripted: Callable[..., Model]
) -> None:
    with pytest.raises(ConversationError, match="no truncated answer"):
        chat.resume()
    ended = Conversation(scripted(lambda ids: 21 if ids[-1] != 21 else EOS), params=GREEDY)
    assert ended.reply("山は?").finish_reason == "stop"
    with pytest.raises(ConversationError, match="no truncated answer"):
        ended.resume()


@pytest.mark.parametrize("change", ["undo", "reset", "load"])
def test_nothing_can_be_resumed_after_a_change(
    chat: Conversation, change: str, tmp_path: Path
) -> None:
    chat.reply("山は?")
    chat.save(tmp_path / "saved.json")
    {"undo": chat.undo, "reset": chat.reset, "load": lambda: chat.load(tmp_path / "saved.json")}[
        change
    ]()
    with pytest.raises(ConversationError, match="no truncated answer"):
        chat.resume()


def test_resume_in_a_full_context(chat: Conversation) -> None:
    chat.params = SamplingParams(temperature=0, max_new_tokens=1000)
    assert chat.reply("山は?").finish_reason == "length"
    turns = list(chat.turns)
    with pytest.raises(ContextError, match="no room"):
        chat.resume().finish()
    assert chat.turns == turns


def test_retry_answers_the_last_message_again(chat: Conversation) -> None:
    chat.reply("山は?")
    old = chat.reply("川は?")
    turns = list(chat.turns)
    assert chat.retry().finish().ids == old.ids
    assert chat.turns == turns
    hot = SamplingParams(temperature=50, seed=7, max_new_tokens=12)
    stream = chat.retry(hot)
    next(stream)
    assert chat.turns == turns  # until the new one has ended
    new = stream.finish()
    assert new.text != old.text
    assert chat.turns == [turns[0], Turn("川は?", new.text)]
    assert new.text == fresh(chat, turns[:1]).reply("川は?", hot).text


def test_an_abandoned_retry_keeps_the_old_answer(chat: Conversation) -> None:
    chat.reply("山は?")
    turns = list(chat.turns)
    stream = chat.retry()
    next(stream)
    stream.close()
    assert chat.turns == turns


def test_undo_removes_the_last_turn(chat: Conversation) -> None:
    chat.reply("山は?")
    turns = list(chat.turns)
    chat.reply("川は?")
    assert chat.undo().message == "川は?"
    assert chat.turns == turns
    assert chat.reply("海は?").text == fresh(chat, turns).reply("海は?").text


def test_nothing_to_undo_or_retry(chat: Conversation) -> None:
    with pytest.raises(ConversationError, match="no turn to undo"):
        chat.undo()
    with pytest.raises(ConversationError, match="no turn to answer again"):
        chat.retry()


def test_reset(chat: Conversation) -> None:
    first = chat.reply("山は?")
    chat.reply("川は?")
    chat.reset()
    assert (chat.turns, chat.role) == ([], ROLE)
    assert chat.reply("山は?").text == first.text
    chat.reset(["User:別"])
    assert (chat.turns, chat.role) == ([], ["User:別"])
    chat.reset(())
    assert chat.role == []
