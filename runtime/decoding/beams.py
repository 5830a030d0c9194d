"""Beam search without a model: which answers are continued, which are finished, and when it ends.

The rules are those of transformers 4.57 (`GenerationMixin._beam_search`) for one prompt. Each step
takes the best candidates, several for every beam, so that enough are left to continue if the best
ones end. A candidate that ends counts if it is among the best `num_beams` of its step.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Literal

from issun.runtime.decoding.filters import Vector, top_k_ids
from issun.runtime.decoding.generate import FinishReason
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ParameterError, check_range

MAX_BEAMS = 1000
# The fields of SamplingParams that beam search follows; lookup changes no answer.
HONOURED = (
    *("repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size"),
    *("logit_bias", "banned_ids", "banned_first_ids", "banned_sequences", "processors"),
    *("min_length", "min_new_tokens", "max_new_tokens", "stop", "lookup"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamParams(SamplingParams):
    """How beam search scores answers, and how many it returns.

    `num_beams` answers are continued at a time, and the best `num_return_sequences` are returned.
    An answer's score is the sum of its log-probabilities, after penalties and bias, divided by the
    number of its tokens to the power of `length_penalty`: above 0, longer answers win more often.
    Once `num_beams` answers have ended, `early_stopping` True ends the search; False ends it when
    no beam is better than the worst of them at its present length; "never" considers the maximum
    length instead if `length_penalty` is above 0.

    Penalties, bans, bias, processors, lengths and stop strings work as in `SamplingParams`. What
    draws at random, `logprobs` and `constraint` are refused. Raises ParameterError.
    """

    temperature: float = 0.0
    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = 1

    def __post_init__(self) -> None:
        """Check every value against its range, and that those not honoured are the defaults."""
        SamplingParams.__post_init__(self)
        off = SamplingParams(temperature=0)
        for name in (parameter.name for parameter in fields(off)):
            if name not in HONOURED and getattr(self, name) != getattr(off, name):
                raise ParameterError(
                    "Beam search does not support {name}: leave it out, or sample the answer.",
                    name=name,
                )
        check_range("num_beams", self.num_beams, Integral, 1, MAX_BEAMS)
        # Beyond these bounds the power of a length may overflow.
        check_range("length_penalty", self.length_penalty, Real, -10, 10)
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ParameterError(
                "early_stopping is {value!r}, it must be True, False or 'never'.",
                value=self.early_stopping,
            )
        check_range("num_return_sequences", self.num_return_sequences, Integral, 1, self.num_beams)


@dataclass(frozen=True, slots=True)
class Beam:
    """An answer: its ids with the end token, and the slot that holds all of them but the last.

    `score` is the sum of log-probabilities; once finished, it is divided by the length's power.
    """

    ids: tuple[int, ...] = ()
    score: float = 0.0
    slot: int = 0
    finish_reason: FinishReason | None = None


class BeamSearch:
    """The beams that are continued, `running`, and the best `finished` ones, the best first."""

    def __init__(
        self,
        params: BeamParams,
        *,
        limit: int,
        ends: Collection[int],
        stopped: Callable[[Sequence[int]], bool] = lambda ids: False,
    ) -> None:
        """Search answers of up to `limit` tokens.

        An answer ends after one of `ends`, or if `stopped(ids)` is true of it.
        """
        self._params, self._limit, self._ends, self._stopped = params, limit, ends, stopped
        self.running, self.finished = [Beam()], list[Beam]()

    def advance(self, log_probabilities: Sequence[Vector]) -> None:
        """Continue each of `running` by one token; it has a row of processed log-probabilities."""
        running, finished = list[Beam](), list(self.finished)
        for rank, beam in enumerate(self._candidates(log_probabilities)):
            reason = self._finish_reason(beam.ids)
            if reason is None:
                running.append(beam)
            elif rank < self._params.num_beams:
                score = self._normalized(beam.score, len(beam.ids))
                finished.append(replace(beam, score=score, finish_reason=reason))
        finished.sort(key=lambda beam: beam.score, reverse=True)
        self.running = running[: self._params.num_beams]
        self.finished = finished[: self._params.num_beams]

    @property
    def done(self) -> bool:
        """Whether no beam is left, or none that could still be better than the finished ones."""
        params = self._params
        if not self.running:
            return True
        if len(self.finished) < params.num_beams:
            return False
        if params.early_stopping is True:
            return True
        best = self.running[0]
        to_the_limit = params.early_stopping == "never" and params.length_penalty > 0
        length = self._limit if to_the_limit else len(best.ids)
        return self._normalized(best.score, length) <= self.finished[-1].score

    def _candidates(self, log_probabilities: Sequence[Vector]) -> list[Beam]:
        """Return the best continuations, the best first; masked ids are none."""
        count = max(2, 1 + len(self._ends)) * self._params.num_beams
        found = [
            (beam.score + float(row[token]), beam, int(token))
            for beam, row in zip(self.running, log_probabilities, strict=True)
            for token in top_k_ids(row, count)
        ]
        best = heapq.nlargest(count, found, key=lambda candidate: candidate[0])
        return [Beam((*beam.ids, token), score, beam.slot) for score, beam, token in best]

    def _finish_reason(self, ids: tuple[int, ...]) -> FinishReason | None:
        if ids[-1] in self._ends or self._stopped(ids):
            return "stop"
        return "length" if len(ids) == self._limit else None

    def _normalized(self, score: float, length: int) -> float:
        return float(score / length**self._params.length_penalty)
