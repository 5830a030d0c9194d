"""Speculation by lookup: what followed the latest tokens before may follow them again.

An answer that quotes its input repeats runs of tokens. A run is proposed whole and verified in one
step, whose cost grows slowly with its rows. Source: Saxena, "Prompt lookup decoding" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

from issun.runtime.session import integer_matmul_saturates

# What one more row costs, as a share of a step over one, by precision: the 1.3 B shape on 2 cores,
# with and without VNNI, and where memory is fast, since rows cost less where it is slow.
_ROW_COST = {"int8": 0.04, "int4": 0.24}
_ROW_COST_WITHOUT = {"int8": 0.18, "int4": 0.40}

_SIZES = (4, 3, 2)  # tokens that must agree; longer runs are surer
_SHORTEST, LONGEST = 2, 15  # tokens of a draft
_START, _MOST = 0.5, 4.0  # steps: what may be lost before the first gain, and after many


def row_cost(precision: str) -> float | None:
    """The cost of one more row on this CPU; None where drafts are not worth it."""
    return (_ROW_COST_WITHOUT if integer_matmul_saturates() else _ROW_COST).get(precision)


class Lookup:
    """Drafts for one answer, as long as these pay.

    `row_cost` is what a row more costs, as a share of a step. What drafts have gained and cost is
    counted in steps; drafts are as long as the balance pays for, and end in this answer with it.
    """

    def __init__(self, ids: Sequence[int], row_cost: float) -> None:
        self._row_cost, self._balance, self._length = row_cost, _START, _SHORTEST
        self._ids: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}  # what the ids behind a run begin with
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Note the next token of the text."""
        for size in _SIZES:
            if len(self._ids) >= size:
                self._next[tuple(self._ids[-size:])] = len(self._ids)
        self._ids.append(token)

    def draft(self, room: int) -> list[int]:
        """Up to `room` tokens that may come next; none where nothing is known or worth it."""
        length = min(self._length, room, int(self._balance / self._row_cost))
        if length < 1:
            return []
        for size in _SIZES:
            start = self._next.get(tuple(self._ids[-size:]))
            if start is not None and len(self._ids) >= size:
                return self._ids[start : start + length]
        return []

    def learn(self, drafted: int, accepted: int) -> None:
        """Take into account that so many of the tokens drafted came."""
        self._balance = min(_MOST, self._balance + accepted - self._row_cost * drafted)
        grown = 2 * self._length if accepted == drafted else max(_SHORTEST, accepted + 1)
        self._length = min(LONGEST, grown)
