"""The prefill of a conversation's next prompt while the user types."""

from __future__ import annotations

import pytest

from issun.runtime import BusyError, ContextError, Conversation, Model, Turn
from tests.runtime.chats import GREEDY, ROLE


def test_tokens_that_were_read_ahead_are_reused(model: Model, chat: Conversation) -> None:
    for message in ("山", "川", "海"):
        # The role before the first message; later also the last turn in its form as history.
        assert chat.read_ahead() > 0
        assert chat.read_ahead() == 0
        known = len(chat._cache.ids[0])
        fresh = Conversation(model, ROLE, params=GREEDY)
        fresh.turns += chat.turns
        completion = chat.reply(message)
        assert completion.timings.reused_tokens >= known - 1
        computed = completion.timings.prompt_tokens - completion.timings.reused_tokens
        assert computed <= len(model.tokenizer.encode(f"User:{message}\\n応答:\\n")) + 3
        assert completion.ids == fresh.reply(message).ids


def test_reading_ahead_stops_between_chunks(model: Model) -> None:
    role = next(
        text
        for text in ("山と川の話。" * n for n in range(1, 99))
        if len(model.prompts.before_message(model.prompts.system_lines(text), [])) > 140
    )
    chat = Conversation(model, role, params=GREEDY)
    asked = iter((False, True))
    first = chat.read_ahead(lambda: next(asked))
    assert first == 128
    assert chat.read_ahead(lambda: True) == 0
    assert chat.read_ahead() > 0


def test_reading_ahead_while_answering_is_refused(chat: Conversation) -> None:
    stream = chat.stream("山")
    with pytest.raises(BusyError):
        chat.read_ahead()
    stream.close()


def test_read_ahead_in_a_full_context_is_useful(model: Model) -> None:
    chat = Conversation(model, ROLE, params=GREEDY)
    chat.turns += [Turn("山" * 10, "川" * 10)] * 20
    assert chat.read_ahead() > 0
    known = len(chat._cache.ids[0])
    completion = chat.reply("海")
    assert completion.dropped_turns > 0
    assert completion.timings.reused_tokens >= known - 1


def test_a_role_that_does_not_fit_cannot_be_read_ahead(model: Model) -> None:
    with pytest.raises(ContextError, match="context of 256"):
        Conversation(model, ["User:" + "長い" * 300]).read_ahead()
