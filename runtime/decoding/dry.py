"""DRY: tokens that would extend a repetition become less likely, the longer it is.

Source: p-e-w, "DRY: A modern repetition penalty" (text-generation-webui, pull request 5677, 2024);
the treatment of sequence breakers is that of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from issun.runtime.decoding.filters import Vector
from issun.runtime.text.tokenizer import Tokenizer

_MAX_LOG_GROWTH = 60.0  # e^60 exceeds any difference of logits, and float32 can hold it


class SequenceBreakers:
    """Texts that a repetition cannot extend across, found in the tokens of a vocabulary."""

    def __init__(self, texts: Sequence[bytes], pieces: Sequence[bytes]) -> None:
        """Look for `texts` in `pieces`, the spelling of every id."""
        self._texts, self._pieces = texts, pieces
        self._containing = {i for i, piece in enumerate(pieces) if any(t in piece for t in texts)}
        self.ids = np.array(sorted(self._containing), np.int64)  # of tokens that contain one
        self._longest = max(map(len, texts), default=0)
        ends = tuple({text[start:] for text in texts for start in range(1, len(text))})
        self._ending = {i for i, piece in enumerate(pieces) if ends and piece.startswith(ends)}

    def tokens_since(self, ids: Sequence[int]) -> int:
        """Return how many of `ids` come after the token in which the last breaker ends."""
        for count, token in enumerate(reversed(ids)):
            if token in self._containing:
                return count
            if token in self._ending and self._ends_at(ids, len(ids) - 1 - count):
                return count
        return len(ids)

    def _ends_at(self, ids: Sequence[int], index: int) -> bool:
        """Return whether a breaker that begins in an earlier token ends in the one at `index`."""
        before, start = b"", index
        while start > 0 and len(before) < self._longest - 1:
            start -= 1
            before = self._pieces[ids[start]] + before
        piece = self._pieces[ids[index]]
        return any(
            text in before[-(len(text) - 1) :] + piece for text in self._texts if len(text) > 1
        )


NO_BREAKERS = SequenceBreakers((), ())


class BreakerFinder:
    """Finds sequence breakers in a tokenizer's vocabulary, and keeps the latest ones."""

    def __init__(self, tokenizer: Tokenizer, rows: int, newline: str | None) -> None:
        """`rows` is the number of ids, `newline` the training data's spelling of a newline."""
        self._tokenizer, self._newline = tokenizer, newline or "\n"
        self._pieces = [tokenizer.piece(token) for token in range(rows)]
        self._found: tuple[tuple[str, ...], SequenceBreakers] = ((), NO_BREAKERS)

    def find(self, texts: tuple[str, ...]) -> SequenceBreakers:
        """Return the breakers `texts`, in their own and in the tokenizer's normal form."""
        if texts != self._found[0]:
            spelled = [text.replace("\n", self._newline) for text in texts]
            forms = {*spelled, *map(self._tokenizer.normalize, spelled)} - {""}
            breakers = SequenceBreakers([form.encode() for form in forms], self._pieces)
            self._found = (texts, breakers)
        return self._found[1]


def penalize_dry(
    logits: Vector,
    seen: Sequence[int],
    *,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: SequenceBreakers = NO_BREAKERS,
) -> None:
    """Subtract multiplier × base^(n - allowed_length) from ids that extend a repetition of n ids.

    The last n of `seen` occur earlier too, and the id follows them there; n is at least
    `allowed_length`. A repetition begins after the last breaker, and tokens that contain one are
    not penalized.
    """
    growth = _MAX_LOG_GROWTH / math.log(base) if base > 1 else 0.0
    longest = min(breakers.tokens_since(seen), allowed_length + int(min(growth, len(seen))))
    lengths = repetitions(seen, allowed_length, longest)
    kept = logits[breakers.ids]
    for token, length in lengths.items():
        logits[token] -= multiplier * base ** (length - allowed_length)
    logits[breakers.ids] = kept


def repetitions(seen: Sequence[int], shortest: int, longest: int) -> dict[int, int]:
    """Return the ids that would extend a repetition, with the length of the longest one.

    Lengths are from `shortest` to `longest`, at which they are cut.
    """
    ids = np.asarray(seen, np.int64)
    following = np.arange(len(ids))  # positions whose preceding ids are the last ones of `seen`
    lengths: NDArray[np.int64] = np.zeros(len(ids), np.int64)
    for length in range(1, min(longest, len(ids) - 1) + 1):
        following = following[following >= length]
        following = following[ids[following - length] == ids[-length]]
        if not len(following):
            break
        lengths[following] = length
    found = np.flatnonzero(lengths >= shortest)
    found = found[np.argsort(lengths[found], kind="stable")]  # the longest of an id comes last
    return dict(zip(ids[found].tolist(), lengths[found].tolist(), strict=True))
