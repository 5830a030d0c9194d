"""Answers that follow a constraint and nothing else: what a model may say at its worst."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from issun.runtime import Model
from issun.runtime.constraint import Constraint


@dataclass(frozen=True)
class Answer:
    ids: list[int]
    text: str
    ended: bool


def wander(model: Model, constraint: Constraint, seed: int, room: int) -> Answer:
    """An answer of at most `room` tokens, the end among them, drawn from those allowed.

    Even seeds draw from all of them; odd ones take the shortest and end as late as they can.
    """
    rng, eos = np.random.default_rng(seed), model.manifest.tokens.eos
    rows = model.manifest.architecture.vocab_size
    lengths = np.array(
        [len(model.tokenizer.piece(i).decode("utf-8", "replace")) for i in range(rows)]
    )
    matcher, ids, ended = constraint.start(), [], False
    text = constraint.text(model.tokenizer, ())
    said = ""
    while len(ids) < room and not ended:
        allowed = np.flatnonzero(matcher.allow(np.zeros(rows, np.float32), ids) == 0)
        if seed % 2 and len(allowed) > 1:
            allowed = allowed[allowed != eos]
            allowed = allowed[lengths[allowed] == lengths[allowed].min()]
        token = int(rng.choice(allowed))
        ended = token == eos
        if not ended:
            ids.append(token)
            said += text.push(token)
    said += text.finish() if ended else text.pause()
    assert constraint.accepts(ids) or not ended
    return Answer(ids, said, ended)
