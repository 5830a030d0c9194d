"""The first token of a chat turn, with what the cache kept and without."""

from __future__ import annotations

import time
from collections.abc import Callable

from issun.runtime import Conversation, Model, SamplingParams, Turn

HISTORY, ANSWER, MESSAGE = 800, 100, 30  # tokens
_SENTENCE = "日本で一番高い山は富士山です。"


def measure_turn(model: Model) -> dict[str, float]:
    """Seconds to the first token of a turn.

    `turn-ahead` with what came before read ahead, which took `turn-reading` while nobody waited;
    `turn-reuse` with what the cache kept of the turn before; `turn-fresh` with nothing, not even
    what every prompt begins with (the prompt made and read, no token drawn). The history has about
    800 tokens, the answer before 100, the message 30; all are in proportion smaller for a context
    below 1,024.
    """
    share = min(1.0, model.decoder.n_positions / 1024)
    answer = SamplingParams(
        temperature=0, min_new_tokens=round(share * ANSWER), max_new_tokens=round(share * ANSWER)
    )
    first = SamplingParams(temperature=0, max_new_tokens=1)
    message = _text(model, round(share * MESSAGE))
    turn = Turn(_text(model, round(share * 30)), _text(model, round(share * 70)))
    kept = Conversation(model)
    while _tokens(model, [*kept.turns, turn], message) < share * HISTORY:
        kept.turns.append(turn)
    found = {}
    # The one that reads ahead is rewound to the answer before first.
    for name in ("turn-reuse", "turn-ahead"):
        kept.reply(message, answer)
        if name == "turn-ahead":
            found["turn-reading"] = _seconds(kept.read_ahead)
        found[name] = _seconds(lambda: kept.reply(message, first))
        kept.undo()
        kept.undo()
    kept.reply(message, answer)
    fresh = model.new_cache()

    def full_prefill() -> None:
        prompt = model.prompts.chat([], kept.turns, message, max_new_tokens=1)
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
    """Text of about so many tokens."""
    text = _SENTENCE
    while len(model.tokenizer.encode(text)) < tokens:
        text += _SENTENCE
    return text
