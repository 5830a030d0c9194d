"""Measures the time to the first token of a chat turn, with and without prompt reuse."""

from __future__ import annotations

import time
from collections.abc import Callable

from issun.runtime import Conversation, Model, SamplingParams, Turn

HISTORY, ANSWER, MESSAGE = 800, 100, 30  # tokens
_SENTENCE = "日本で一番高い山は富士山です。"


def measure_chat_turn(model: Model) -> dict[str, float]:
    """Seconds to the first token of a chat turn.

    `turn-reuse` reuses the KV cache of the previous turn. For `turn-ahead` the conversation so far
    was also prefilled before the message arrived, which took `turn-reading`. `turn-fresh` prefills
    the whole prompt into an empty cache, without the template's cached prefix. The history has
    about 800 tokens, the previous answer 100, the message 30; all are proportionally shorter for a
    context below 1,024.
    """
    share = min(1.0, model.decoder.n_positions / 1024)
    answer = SamplingParams(
        temperature=0, min_new_tokens=round(share * ANSWER), max_new_tokens=round(share * ANSWER)
    )
    first = SamplingParams(temperature=0, max_new_tokens=1)
    message = _text(model, round(share * MESSAGE))
    turn = Turn(_text(model, round(share * 30)), _text(model, round(share * 70)))
    chat = Conversation(model)
    while _tokens(model, [*chat.turns, turn], message) < share * HISTORY:
        chat.turns.append(turn)
    found = {}
    for name in ("turn-reuse", "turn-ahead"):
        chat.reply(message, answer)
        if name == "turn-ahead":
            found["turn-reading"] = _seconds(chat.read_ahead)
        found[name] = _seconds(lambda: chat.reply(message, first))
        chat.undo()
        chat.undo()
    chat.reply(message, answer)
    fresh = model.new_cache()

    def full_prefill() -> None:
        prompt = model.prompts.chat([], chat.turns, message, max_new_tokens=1)
        model.decoder.prefill(fresh, prompt.ids)

    found["turn-fresh"] = _seconds(full_prefill)
    return found


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _tokens(model: Model, turns: list[Turn], message: str) -> int:
    return len(model.prompts.chat([], turns, message, max_new_tokens=1).ids)


def _text(model: Model, tokens: int) -> str:
    """Text of at least `tokens` tokens."""
    text = _SENTENCE
    while len(model.tokenizer.encode(text)) < tokens:
        text += _SENTENCE
    return text
