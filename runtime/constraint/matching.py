"""The state of one answer in its grammar: which tokens may come next, and whether it may end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.vocabulary import Vocabulary
from issun.runtime.decoding.filters import Vector
from issun.runtime.errors import SamplingError
from issun.runtime.text.stream import Restorer, TextStream
from issun.runtime.text.tokenizer import Tokenizer

Allowed = NDArray[np.bool_]
MASK_SECONDS = 1.0  # that a constraint may take for one token


@dataclass(frozen=True, slots=True)
class Constraint:
    """A compiled grammar over one model's vocabulary, used for any number of answers."""

    grammar: str
    vocabulary: Vocabulary = field(compare=False, repr=False)
    compiled: Any = field(compare=False, repr=False)  # a matcher in its initial state
    is_json: bool
    spare: int | None = None  # tokens beyond one a character; None without a limit
    restorer: Callable[[], Restorer] | None = field(default=None, compare=False, repr=False)

    def start(self) -> Matcher:
        """Return the state of a new answer."""
        pairs = {} if self.is_json else self.vocabulary.pairs
        costs = None if self.spare is None else self.vocabulary.costs
        return Matcher(
            self.compiled.deep_copy(),
            pairs,
            self.vocabulary.rows,
            costs=costs,
            spare=self.spare or 0,
        )

    def accepts(self, ids: Sequence[int]) -> bool:
        """Return whether `ids`, without the end token, are a complete answer."""
        matcher = self.start()
        try:
            matcher.consume(ids)
        except SamplingError:
            return False
        return matcher.may_end()

    @property
    def newline(self) -> str:
        """The spelling of newlines that the text of an answer replaces; JSON keeps its own."""
        return "" if self.is_json else self.vocabulary.newline

    def text(self, tokenizer: Tokenizer, stop: Sequence[str]) -> TextStream:
        """Return the text stream of an answer."""
        restorer = self.restorer() if self.restorer else None
        return TextStream(tokenizer, self.newline, stop, strip_suffix="", restorer=restorer)


class Matcher:
    """The state of one answer in its grammar.

    `pairs` maps two tokens that spell a newline together to the grammar's token for both. After the
    first of such a pair there are two states: `_state` has consumed it as text, `_pending` has not
    consumed it. The second token decides between them.

    The grammar bounds an answer's characters, not its tokens. A character that takes several
    tokens is therefore allowed only while `spare` covers their `costs`, or if nothing else is;
    pieces of several characters add to it.
    """

    def __init__(
        self,
        state: Any,
        pairs: Mapping[int, Mapping[int, int]],
        rows: int,
        *,
        costs: NDArray[np.int64] | None = None,
        spare: int = 0,
    ) -> None:
        self._state, self._pending = state, None
        self._costs, self._spare = costs, spare
        self._rows, self._pairs = rows, pairs
        self._consumed: list[int] = []  # consumed ids of the answer
        self._prepared: Allowed | None = None  # the mask after these
        tokens = rows + sum(map(len, pairs.values()))
        self._mask = np.zeros(-(-tokens // 32), np.int32)

    def prepare(self, answer: Sequence[int]) -> None:
        """Compute what may follow `answer` for the next `apply_mask`, and raise as that does.

        May run in another thread while nothing else uses the matcher.
        """
        self.consume(answer)
        self._prepared = self._allowed()

    def apply_mask(self, logits: Vector, answer: Sequence[int]) -> Vector:
        """Mask every id that may not follow `answer`; raises SamplingError if none may."""
        self.consume(answer)
        allowed = self._allowed() if self._prepared is None else self._prepared
        return np.where(allowed[: len(logits)], logits, np.float32(-np.inf))

    def consume(self, answer: Sequence[int]) -> None:
        """Consume the new ids of `answer`; raises SamplingError for what the grammar forbids."""
        for token in answer[len(self._consumed) :]:
            self._prepared = None
            self._consume_token(token)
            self._consumed.append(token)
            if self._costs is not None:
                self._spare -= int(self._costs[token])

    def may_end(self) -> bool:
        """Return whether the consumed ids are a complete answer."""
        return self._state is not None and bool(self._state.is_accepting())

    def shortest(self, vocabulary: Vocabulary, effort: Effort) -> int:
        """Estimate the fewest tokens of a complete answer, greedily taking the longest ones.

        Raises as `effort.check` does.
        """
        texts = [piece.decode("utf-8", "replace").strip(" ") for piece in vocabulary.pieces]
        lengths = np.array([len(text) for text in texts])
        answer: list[int] = []
        while not self.may_end():
            effort.check()
            allowed = self._allowed()
            answer.append(int(np.where(allowed, lengths, -1).argmax()))
            self.consume(answer)
        return len(answer)

    def _consume_token(self, token: int) -> None:
        both = self._newline_seconds().get(token)
        if both is not None:
            state, token = self._pending, both
            self._pending = None
        else:
            state = self._state
            self._pending = state.deep_copy() if state and token in self._pairs else None
        if state is not None and not state.is_error() and state.consume_token(token):
            self._state = state
        elif self._pending is not None:
            self._state = None  # not valid as text, only as the first half of a newline
        else:
            raise _stuck(state)

    def _newline_seconds(self) -> Mapping[int, int]:
        """Return the tokens that form a newline with the last one."""
        return self._pairs[self._consumed[-1]] if self._pending is not None else {}

    def _allowed(self) -> Allowed:
        began = time.thread_time()
        if self._state is None:
            allowed = np.zeros(self._rows, np.bool_)
        else:
            everything = self._compute(self._state)
            allowed = everything[: self._rows]
            for first, seconds in self._pairs.items():
                allowed[first] |= everything[list(seconds.values())].any()
        seconds = self._newline_seconds()
        if seconds:
            newline = self._compute(self._pending)
            allowed[list(seconds)] = newline[list(seconds.values())]
        if not allowed.any():
            raise _stuck(self._state)
        if time.thread_time() > began + MASK_SECONDS:
            raise too_slow()
        if self._costs is None:
            return allowed
        affordable: Allowed = allowed & (self._costs <= max(self._spare, 0))
        return affordable if affordable.any() else allowed

    def _compute(self, state: Any) -> Allowed:
        state.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if state.is_error():
            return np.zeros(self._mask.nbytes * 8, np.bool_)
        return np.unpackbits(self._mask.view(np.uint8), bitorder="little").astype(np.bool_)


def _stuck(state: Any) -> SamplingError:
    reason = first_line(state.get_error()) if state is not None and state.is_error() else "stuck"
    return SamplingError(
        "The answer cannot continue under its constraint: {reason}",
        reason=reason,
    )


def too_slow() -> SamplingError:
    """Return the error for a constraint that takes too long for one token."""
    return SamplingError(
        "The constraint takes more than {limit:g} s for one token: simplify it.",
        limit=MASK_SECONDS,
    )


def first_line(text: str) -> str:
    """Return the reason only; llguidance appends its state or the grammar, with the user's text."""
    lines = text.partition("<state>")[0].splitlines() or [""]
    return lines[0].strip()[:300]
