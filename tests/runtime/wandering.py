"""Worst-case answers that follow a constraint but no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from issun.runtime.constraint.matching import Constraint
from issun.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    ids: list[int]
    text: str
    ended: bool


def wander(tokenizer: Tokenizer, constraint: Constraint, seed: int, room: int = 100) -> Answer:
    """An answer of at most `room` tokens, the end among them, drawn from those allowed.

    Even seeds draw from all of them; odd ones take the shortest and end as late as they can.
    """
    rng, vocabulary = np.random.default_rng(seed), constraint.vocabulary
    lengths = np.array([len(piece.decode("utf-8", "replace")) for piece in vocabulary.pieces])
    matcher, text = constraint.start(), constraint.text(tokenizer, ())
    ids: list[int] = []
    said, ended = "", False
    while len(ids) < room and not ended:
        logits = np.zeros(len(lengths), np.float32)
        allowed = np.flatnonzero(matcher.apply_mask(logits, ids) == 0)
        if seed % 2 and len(allowed) > 1:
            others = allowed[~np.isin(allowed, vocabulary.ends)]
            allowed = others if len(others) else allowed
            allowed = allowed[lengths[allowed] == lengths[allowed].min()]
        token = int(rng.choice(allowed))
        ended = token in vocabulary.ends
        if not ended:
            ids.append(token)
            said += text.push(token)
    said += text.finish() if ended else text.pause()
    assert constraint.accepts(ids) or not ended
    return Answer(ids, said, ended)
