"""A role and parameters for conversation tests, and the same conversation without a cache."""

from __future__ import annotations

from issun.runtime import Conversation, SamplingParams, Turn

GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
ROLE = ["User:一寸", "Assistant:はい"]
EOS = 3


def fresh(chat: Conversation, turns: list[Turn]) -> Conversation:
    """Return a conversation with the same role and `turns` and an empty KV cache."""
    other = Conversation(chat.model, chat.role, params=chat.params)
    other.turns = list(turns)
    return other
