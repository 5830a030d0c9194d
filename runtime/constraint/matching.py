"""One answer in its grammar: which tokens may come next, and whether it may end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.errors import SamplingError
from issun.runtime.filters import Vector
from issun.runtime.stream import Restorer, TextStream
from issun.runtime.tokenizer import Tokenizer

Allowed = NDArray[np.bool_]
MASK_SECONDS = 1.0  # that a constraint may take for one token


@dataclass(frozen=True, slots=True)
class Constraint:
    """A grammar over one model's vocabulary; every answer begins it anew."""

    grammar: str
    vocabulary: Vocabulary = field(compare=False, repr=False)
    compiled: Any = field(compare=False, repr=False)  # a matcher that has read nothing
    is_json: bool
    restorer: Callable[[], Restorer] | None = field(default=None, compare=False, repr=False)

    def start(self) -> Matcher:
        """What follows one answer."""
        pairs = {} if self.is_json else self.vocabulary.pairs
        return Matcher(self.compiled.deep_copy(), pairs, self.vocabulary.rows)

    def accepts(self, ids: Sequence[int]) -> bool:
        """True when `ids`, without the end token, are a whole answer."""
        matcher = self.start()
        try:
            matcher.read(ids)
        except SamplingError:
            return False
        return matcher.may_end()

    def text(self, tokenizer: Tokenizer, stop: Sequence[str]) -> TextStream:
        """The text of an answer: newlines are real but in JSON, and the last one is kept."""
        restorer = self.restorer() if self.restorer else None
        newline = "" if self.is_json else self.vocabulary.newline
        return TextStream(tokenizer, newline, stop, last="", restorer=restorer)


class Matcher:
    """The state of one answer in its grammar.

    `pairs` are tokens that spell a newline together, and the token of the grammar that stands for
    both. Behind the first of such a pair two readings are open: `_state` has read it as text,
    `_before` has not read it; the second token decides.
    """

    def __init__(self, state: Any, pairs: Mapping[int, Mapping[int, int]], rows: int) -> None:
        self._state, self._before = state, None
        self._rows, self._pairs = rows, pairs
        self._known: list[int] = []  # of the answer
        self._prepared: Allowed | None = None  # what may follow those
        tokens = rows + sum(map(len, pairs.values()))
        self._mask = np.zeros(-(-tokens // 32), np.int32)

    def prepare(self, answer: Sequence[int]) -> None:
        """Work out what may follow `answer`, for the next `allow`, and raise as that does.

        May be done in another thread, while nobody else uses the matcher.
        """
        self.read(answer)
        self._prepared = self._allowed()

    def allow(self, logits: Vector, answer: Sequence[int]) -> Vector:
        """Put out every id that may not follow `answer`; raises SamplingError when none may."""
        self.read(answer)
        allowed = self._allowed() if self._prepared is None else self._prepared
        return np.where(allowed[: len(logits)], logits, np.float32(-np.inf))

    def read(self, answer: Sequence[int]) -> None:
        """Read what is new of `answer`; raises SamplingError for what the grammar forbids."""
        for token in answer[len(self._known) :]:
            self._prepared = None
            self._consume(token)
            self._known.append(token)

    def may_end(self) -> bool:
        """True when what was read is a whole answer."""
        return self._state is not None and bool(self._state.is_accepting())

    def shortest(self, vocabulary: Vocabulary, effort: Effort) -> int:
        """About how few tokens make a whole answer: those that say most, until it may end.

        Raises as `effort.check` does.
        """
        texts = [piece.decode("utf-8", "replace").strip(" ") for piece in vocabulary.pieces]
        lengths = np.array([len(text) for text in texts])
        answer: list[int] = []
        while not self.may_end():
            effort.check()
            allowed = self._allowed()
            answer.append(int(np.where(allowed, lengths, -1).argmax()))
            self.read(answer)
        return len(answer)

    def _consume(self, token: int) -> None:
        both = self._seconds().get(token)
        if both is not None:
            state, token = self._before, both
            self._before = None
        else:
            state = self._state
            self._before = state.deep_copy() if state and token in self._pairs else None
        if state is not None and not state.is_error() and state.consume_token(token):
            self._state = state
        elif self._before is not None:
            self._state = None  # not as text: only as the first half of a newline
        else:
            raise _stuck(state)

    def _seconds(self) -> Mapping[int, int]:
        """What would make a newline with the last token."""
        return self._pairs[self._known[-1]] if self._before is not None else {}

    def _allowed(self) -> Allowed:
        began = time.thread_time()
        if self._state is None:
            allowed = np.zeros(self._rows, np.bool_)
        else:
            everything = self._compute(self._state)
            allowed = everything[: self._rows]
            for first, seconds in self._pairs.items():
                allowed[first] |= everything[list(seconds.values())].any()
        seconds = self._seconds()
        if seconds:
            newline = self._compute(self._before)
            allowed[list(seconds)] = newline[list(seconds.values())]
        if not allowed.any():
            raise _stuck(self._state)
        if time.thread_time() > began + MASK_SECONDS:
            raise too_slow()
        return allowed

    def _compute(self, state: Any) -> Allowed:
        state.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if state.is_error():
            return np.zeros(self._mask.nbytes * 8, np.bool_)
        return np.unpackbits(self._mask.view(np.uint8), bitorder="little").astype(np.bool_)


def _stuck(state: Any) -> SamplingError:
    reason = first_line(state.get_error()) if state is not None and state.is_error() else "stuck"
    return SamplingError(
        "The answer cannot go on as it was constrained: {reason}",
        reason=reason,
    )


def too_slow() -> SamplingError:
    """The error of a constraint that takes too long for one token."""
    return SamplingError(
        "The constraint takes more than {limit:g} s for one token: take a simpler one.",
        limit=MASK_SECONDS,
    )


def first_line(text: str) -> str:
    """The reason alone: behind it llguidance shows its state or the grammar, with what was said."""
    lines = text.partition("<state>")[0].splitlines() or [""]
    return lines[0].strip()[:300]
