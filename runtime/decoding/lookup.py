"""Prompt-lookup decoding: drafts tokens from earlier text and verifies them in one step.

An answer that quotes its input repeats runs of tokens. A repeated run is drafted whole and verified
in one step, whose cost grows slowly with its rows. Source: Saxena, "Prompt lookup decoding" (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

_NGRAM_SIZES = (4, 3, 2)  # n-gram sizes to match, longest first
_MIN_DRAFT, MAX_DRAFT = 2, 15  # tokens of a draft
# Steps that may be lost: before the first gain, and after many.
_INITIAL_BALANCE, _MAX_BALANCE = 0.5, 4.0


class PromptLookup:
    """Drafts tokens for one answer as long as that pays off.

    `row_cost` is the cost of one more row as a share of a step. The balance of gains and costs is
    counted in steps; drafts are as long as the balance can pay for and stop when it is used up.
    """

    def __init__(self, ids: Sequence[int], row_cost: float) -> None:
        self._row_cost, self._balance, self._length = row_cost, _INITIAL_BALANCE, _MIN_DRAFT
        self._ids: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}  # n-gram -> index of the id after its last use
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Append the next token of the text."""
        for size in _NGRAM_SIZES:
            if len(self._ids) >= size:
                self._next[tuple(self._ids[-size:])] = len(self._ids)
        self._ids.append(token)

    def draft(self, limit: int) -> list[int]:
        """Return a draft of up to `limit` tokens; empty if nothing matches or it does not pay."""
        length = min(self._length, limit, int(self._balance / self._row_cost))
        if length < 1:
            return []
        for size in _NGRAM_SIZES:
            start = self._next.get(tuple(self._ids[-size:]))
            if start is not None and len(self._ids) >= size:
                return self._ids[start : start + length]
        return []

    def update(self, drafted: int, accepted: int) -> None:
        """Update the balance and the draft length from how many drafted tokens were accepted."""
        self._balance = min(_MAX_BALANCE, self._balance + accepted - self._row_cost * drafted)
        grown = 2 * self._length if accepted == drafted else max(_MIN_DRAFT, accepted + 1)
        self._length = min(MAX_DRAFT, grown)
