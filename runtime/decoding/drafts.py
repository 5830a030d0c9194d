"""Draft tokens without a second model: guesses that are verified several at a time in one step.

A step's cost grows slowly with its rows, so a guess that is often right pays. There are two sources
of guesses. An answer that quotes its input repeats runs of tokens (Saxena, "Prompt lookup
decoding", 2023). And after a token the model often says again what it last found most probable
there (Luo et al., "Turning Trash into Treasure: Accelerating Inference of Large Language Models
with Token Recycling", 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from issun.runtime.decoding.draft_table import DraftTable

MAX_DRAFT = 15  # tokens of a draft


class Source(Enum):
    """What a guess rests on."""

    RUN_OF_8 = "the last 8 tokens occurred before"
    RUN_OF_4 = "the last 4 tokens occurred before"
    RUN_OF_3 = "the last 3 tokens occurred before"
    RUN_OF_2 = "the last 2 tokens occurred before"
    AFTER_TWO = "an earlier prediction after the last 2 tokens"
    AFTER_ONE = "an earlier prediction after the last token"


_RUNS = {8: Source.RUN_OF_8, 4: Source.RUN_OF_4, 3: Source.RUN_OF_3, 2: Source.RUN_OF_2}
# Each source starts with this many right guesses out of so many: enough to be tried where rows are
# cheap, and few enough that an answer loses little if they are all wrong.
_PRIOR = {
    Source.RUN_OF_8: (2.0, 3.0),
    Source.RUN_OF_4: (1.0, 2.0),
    Source.RUN_OF_3: (1.0, 4.0),
    Source.RUN_OF_2: (1.0, 4.0),
    Source.AFTER_TWO: (2.0, 8.0),
    Source.AFTER_ONE: (2.0, 8.0),
}
_MAX_COUNT = 24  # guesses of a source; beyond that, older ones count half
# The first further row costs so many times the mean, since a single row has kernels of its own:
# 13 % of a step where the mean of seven is 9 %, 26 % where it is 18 % (1.3 B shape in int8).
_FIRST_ROW = 1.5
# Wrong guesses may take this share of an answer's time, and that of so many tokens in advance.
_MAX_LOSS, _IN_ADVANCE = 0.03, 16


@dataclass(frozen=True, slots=True)
class Guess:
    """A guessed token and its source."""

    token: int
    source: Source


class Predictions:
    """The model's latest predictions in one conversation: the likeliest token after others.

    They start from the bundle's `table`, if it has one, which stays as it is.
    """

    def __init__(self, table: DraftTable | None = None) -> None:
        self._table = table
        self._after_pair: dict[tuple[int, int], int] = {}
        self._after_token: dict[int, int] = {}

    def add(self, previous: int, token: int, likeliest: int) -> None:
        """Record which token was the likeliest after `previous` and `token`."""
        self._after_pair[previous, token] = self._after_token[token] = likeliest

    def guess(self, previous: int, token: int) -> Guess | None:
        """Return the latest prediction after both tokens, or else after `token`."""
        table = self._table
        likeliest = self._after_pair.get((previous, token))
        if likeliest is None and table:
            likeliest = table.after_pair(previous, token)
        if likeliest is not None:
            return Guess(likeliest, Source.AFTER_TWO)
        likeliest = self._after_token.get(token)
        if likeliest is None and table:
            likeliest = table.after_token(token)
        return None if likeliest is None else Guess(likeliest, Source.AFTER_ONE)


class Drafts:
    """Drafts tokens for one answer as long as that pays off.

    `row_cost` is the mean cost of one more row as a share of a step. A draft grows while the
    probability that all of it is accepted is at least what its next row costs, by how often each
    source was right in this answer, and while wrong guesses have cost little of the answer's time.
    """

    def __init__(
        self, ids: Sequence[int], row_cost: float, predictions: Predictions | None = None
    ) -> None:
        self.row_cost, self._predictions = row_cost, predictions or Predictions()
        self._counts = dict(_PRIOR)  # right guesses and all guesses
        self._draft: list[Guess] = []  # the rest of the latest draft, last guess first
        self._tokens, self._lost = 0, 0.0  # of the answer, and steps lost by drafts so far
        self._ids: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}  # run -> index of the id after its last use
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Append the next token of the text."""
        for size in _RUNS:
            if len(self._ids) >= size:
                self._next[tuple(self._ids[-size:])] = len(self._ids)
        self._ids.append(token)

    def predict(self, likeliest: int) -> None:
        """Record the likeliest token after the text so far."""
        if len(self._ids) >= 2:
            self._predictions.add(self._ids[-2], self._ids[-1], likeliest)

    def draft(self, limit: int) -> list[Guess]:
        """Return a draft of up to `limit` tokens; empty if nothing is known or it does not pay."""
        (draft,) = draft_together([self], [limit])
        return draft

    def candidates(self, limit: int) -> Iterator[tuple[Guess, float]]:
        """Yield up to `limit` guesses, each with the probability that all so far are right."""
        accepted = 1.0
        for guess in islice(self._guesses(), min(limit, MAX_DRAFT)):
            accepted *= self._rate(guess.source)
            yield guess, accepted

    def affordable(self, cost: float) -> int:
        """Return how many tokens a draft may have, if each takes `cost` of a step on average."""
        left = _MAX_LOSS * max(self._tokens, _IN_ADVANCE) - self._lost
        return max(0, int(left / cost - (_FIRST_ROW - 1)))

    def verify(self, draft: Sequence[Guess], cost: float = 0.0) -> None:
        """Compare the next tokens with `draft`, which takes `cost` of a step."""
        self._draft = list(reversed(draft))
        self._lost += cost

    def accept(self, token: int) -> bool:
        """Append the next token of the text; return whether the draft guessed it."""
        self.add(token)
        self._tokens += 1
        if not self._draft:
            return False
        guess = self._draft.pop()
        right = guess.token == token
        if not right:
            self._draft.clear()  # guesses after the first wrong one tell nothing
        self._count(guess.source, right=right)
        self._lost -= right
        return right

    def _count(self, source: Source, *, right: bool) -> None:
        before, tried = self._counts[source]
        scale = 0.5 if tried + 1 > _MAX_COUNT else 1.0
        self._counts[source] = (scale * (before + right), scale * (tried + 1))

    def _rate(self, source: Source) -> float:
        right, tried = self._counts[source]
        return right / tried

    def _guesses(self) -> Iterator[Guess]:
        """Yield one guess after the other, each from the source that is right most often."""
        if len(self._ids) < 2:
            return
        run, at = self._longest_run()
        previous, token = self._ids[-2:]
        while True:
            guess = self._predictions.guess(previous, token)
            if at < len(self._ids):
                quoted = Guess(self._ids[at], _RUNS[max(n for n in _RUNS if n <= run)])
                if guess is None or self._rate(quoted.source) >= self._rate(guess.source):
                    guess = quoted
                # The run goes on as long as the guesses agree with it.
                run, at = (run + 1, at + 1) if guess.token == quoted.token else (0, len(self._ids))
            if guess is None:
                return
            yield guess
            previous, token = token, guess.token

    def _longest_run(self) -> tuple[int, int]:
        """Return the size of the longest run that the text repeats, and the index after it."""
        for size in _RUNS:
            if len(self._ids) >= size:
                start = self._next.get(tuple(self._ids[-size:]))
                if start is not None:
                    return size, start
        return 0, len(self._ids)


def draft_together(batch: Sequence[Drafts | None], limits: Sequence[int]) -> list[list[Guess]]:
    """Return a draft for each sequence of a batch, of up to so many tokens.

    A step pads the shorter drafts, so one more token costs a row for each sequence. The drafts grow
    as long as that takes no more time, as a share of the step, than it is expected to save.
    """
    drafts: list[list[Guess]] = [[] for _ in batch]
    row_cost = max((drafting.row_cost for drafting in batch if drafting), default=0.0)
    # Of one more token on average, as a share of a step without drafts.
    cost = len(batch) * row_cost / (1 + (len(batch) - 1) * row_cost)
    # Each sequence takes the time of the longest draft, so none may lose too much by it.
    affordable = min((drafting.affordable(cost) for drafting in batch if drafting), default=0)
    candidates = [
        drafting.candidates(min(limit, affordable)) if drafting else iter(())
        for drafting, limit in zip(batch, limits, strict=True)
    ]
    longest = 0
    while any(column := [next(following, None) for following in candidates]):
        next_cost = cost if longest else _FIRST_ROW * cost
        if sum(found[1] for found in column if found) / len(batch) < next_cost:
            break
        longest += 1
        for draft, found in zip(drafts, column, strict=True):
            if found:
                draft.append(found[0])
    for drafting, draft in zip(batch, drafts, strict=True):
        if drafting:
            drafting.verify(draft, cost * (longest + _FIRST_ROW - 1) if longest else 0.0)
    return drafts
