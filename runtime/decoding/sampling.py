"""Logits to the next id: the sampling parameters, and the order in which filters are applied.

Order: bans, the end tokens before `min_new_tokens` and the constraint; logit bias; repetition,
presence and frequency penalty; no-repeat n-gram; the caller's processors; then, unless greedy,
temperature, top-k, top-p, min-p, typical-p; finally the draw with one random number. This is the
order of transformers' generate. A masked id has a logit of minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from issun.runtime.decoding.filters import (
    MASKED,
    Vector,
    add_bias,
    ban,
    ban_sequences,
    draw,
    keep_min_p,
    keep_top_p,
    keep_typical,
    no_repeat_ngram,
    penalize_presence_and_frequency,
    penalize_repetition,
    scale_temperature,
    top_k_ids,
)
from issun.runtime.errors import ParameterError, SamplingError
from issun.runtime.text.stream import TextStream
from issun.runtime.text.tokenizer import Tokenizer


class Matcher(Protocol):
    """The state of one answer in a grammar."""

    def prepare(self, answer: Sequence[int]) -> None:
        """Compute which tokens may follow `answer`, for the next `apply_mask`."""

    def apply_mask(self, logits: Vector, answer: Sequence[int]) -> Vector:
        """Mask the tokens that may not follow `answer`."""


class Constraint(Protocol):
    """A grammar that answers must follow; see `issun.runtime.constraint`."""

    def start(self) -> Matcher:
        """Return the state of a new answer."""

    def text(self, tokenizer: Tokenizer, stop: Sequence[str]) -> TextStream:
        """Return the text stream of an answer."""


Processor = Callable[[Sequence[int], Vector], Vector]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are sampled and when an answer ends; all values are checked on construction.

    `temperature` 0 is greedy decoding. `top_k` 0, `top_p` 1, `min_p` 0, `typical_p` 1,
    `repetition_penalty` 1, `presence_penalty` 0, `frequency_penalty` 0 and `no_repeat_ngram_size`
    0 disable these filters. The repetition penalty and the n-grams consider prompt and answer, the
    other two penalties only the answer. `banned_ids` None bans `<unk>`; logit rows without a token
    are never sampled. `banned_first_ids` are banned as the first token of an answer, and the last
    id of each of `banned_sequences` is banned after the others. `min_length` counts prompt and
    answer. `logprobs` n reports the raw log-probabilities of the sampled token and of the n most
    likely ones. `processors` are called with the ids so far and the logits, and return logits.
    `constraint` allows only tokens that its grammar accepts. `lookup` enables draft tokens
    as long as they make the answer faster; they do not change which tokens are sampled.
    Raises ParameterError.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    banned_ids: tuple[int, ...] | None = None
    banned_first_ids: tuple[int, ...] = ()
    banned_sequences: tuple[tuple[int, ...], ...] = ()
    min_length: int = 0
    min_new_tokens: int = 0
    max_new_tokens: int = 100
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int = 0
    lookup: bool = True
    processors: tuple[Processor, ...] = ()
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        """Check every value against its range."""
        number, whole = Real, Integral
        _check_range("temperature", self.temperature, number, 0, 100)
        _check_range("top_k", self.top_k, whole, 0, math.inf)
        _check_range("top_p", self.top_p, number, 0, 1, exclusive=True)
        _check_range("min_p", self.min_p, number, 0, 1)
        _check_range("typical_p", self.typical_p, number, 0, 1, exclusive=True)
        _check_range("repetition_penalty", self.repetition_penalty, number, 0, 100, exclusive=True)
        _check_range("presence_penalty", self.presence_penalty, number, -100, 100)
        _check_range("frequency_penalty", self.frequency_penalty, number, -100, 100)
        _check_range("no_repeat_ngram_size", self.no_repeat_ngram_size, whole, 0, math.inf)
        _check_range("max_new_tokens", self.max_new_tokens, whole, 1, math.inf)
        _check_range("min_length", self.min_length, whole, 0, math.inf)
        _check_range("min_new_tokens", self.min_new_tokens, whole, 0, math.inf)
        if self.min_new_tokens > self.max_new_tokens:
            raise ParameterError(
                "min_new_tokens is {low}, it must be at most max_new_tokens, which is {high}.",
                low=self.min_new_tokens,
                high=self.max_new_tokens,
            )
        _check_range("logprobs", self.logprobs, whole, 0, math.inf)
        if not isinstance(self.lookup, bool):
            raise ParameterError(
                "lookup is {value!r}, it must be True or False.", value=self.lookup
            )
        if self.seed is not None:
            _check_range("seed", self.seed, whole, 0, 2**64 - 1)
        if not isinstance(self.logit_bias, Mapping):
            raise ParameterError(
                "logit_bias is {value!r}, it must map ids to numbers.", value=self.logit_bias
            )
        for token in self.banned_ids if self.banned_ids is not None else ():
            _check_range("banned_ids", token, whole, 0, math.inf)
        for token in self.banned_first_ids:
            _check_range("banned_first_ids", token, whole, 0, math.inf)
        for sequence in self.banned_sequences:
            _check_range("the length of a banned sequence", len(sequence), whole, 1, math.inf)
            for token in sequence:
                _check_range("banned_sequences", token, whole, 0, math.inf)
        for token, bias in self.logit_bias.items():
            _check_range("logit_bias", token, whole, 0, math.inf)
            _check_range(f"logit_bias[{token}]", bias, number, -math.inf, 1e4)
        if not isinstance(self.stop, tuple | list) or not all(
            isinstance(s, str) and s for s in self.stop
        ):
            raise ParameterError(
                "stop is {value!r}, it must be a tuple of non-empty strings.",
                value=self.stop,
            )


def _bounds(low: float, high: float, *, exclusive: bool) -> str:
    """A range in words, which the command line translates."""
    if math.isinf(low):
        return f"of at most {high:g}"
    if math.isinf(high):
        return f"of at least {low:g}"
    return f"above {low:g} and at most {high:g}" if exclusive else f"from {low:g} to {high:g}"


def _check_range(
    name: str, value: Any, kind: Any, low: float, high: float, *, exclusive: bool = False
) -> None:
    good = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and (low < value if exclusive else low <= value)  # false for NaN
        and value <= high
    )
    if not good:
        bounds = _bounds(low, high, exclusive=exclusive)
        if kind is Integral:
            raise ParameterError(
                "{name} is {value!r}, it must be a whole number {bounds}.",
                name=name,
                value=value,
                bounds=bounds,
            )
        raise ParameterError(
            "{name} is {value!r}, it must be a number {bounds}.",
            name=name,
            value=value,
            bounds=bounds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What sampling needs to know about the ids.

    Logits have `rows` entries. Entries from `pieces` on are tokens only if they are in `added` or
    `ends`.
    """

    rows: int
    pieces: int
    unk: int | None
    ends: Collection[int]
    added: Collection[int] = ()

    @property
    def without_token(self) -> list[int]:
        """The rows that have no token and are never sampled."""
        tokens = {*self.ends, *self.added}
        return [row for row in range(self.pieces, self.rows) if row not in tokens]


class Sampler:
    """Samples the tokens of one answer; owns the random generator and the grammar's state."""

    def __init__(
        self, params: SamplingParams, vocabulary: Vocabulary, rng: np.random.Generator
    ) -> None:
        self._params, self._rng = params, rng
        unknown = () if vocabulary.unk is None else (vocabulary.unk,)
        banned = unknown if params.banned_ids is None else params.banned_ids
        _check_ids("banned_ids", banned, vocabulary.rows)
        _check_ids("logit_bias", params.logit_bias, vocabulary.rows)
        for sequence in params.banned_sequences:
            _check_ids("banned_sequences", sequence, vocabulary.rows)
        _check_ids("banned_first_ids", params.banned_first_ids, vocabulary.rows)
        self._banned = np.array([*banned, *vocabulary.without_token], np.int64)
        self._ends = np.array([*vocabulary.ends], np.int64)
        self._matcher = params.constraint.start() if params.constraint else None

    def sample(self, logits: Vector, prompt: Sequence[int], answer: Sequence[int]) -> int:
        """Return the next id after `prompt` and `answer`; raises SamplingError if there is none."""
        logits = self._process(logits, prompt, answer)
        highest = logits.max()  # NaN if any logit is
        if math.isnan(highest) or highest == math.inf:
            raise SamplingError("The model returned logits that are not numbers (NaN).")
        if highest == MASKED:
            raise SamplingError("No token can be sampled: all are banned.")
        if self._params.temperature == 0:
            return int(logits.argmax())
        logits, ids = self._warp(logits)
        index = draw(logits, float(self._rng.random()))
        return index if ids is None else int(ids[index])

    @property
    def needs_prepare(self) -> bool:
        """Whether `prepare` does anything."""
        return self._matcher is not None

    def prepare(self, answer: Sequence[int]) -> None:
        """Compute what the constraint allows after `answer`; any thread may call this."""
        if self._matcher:
            self._matcher.prepare(answer)

    def _process(self, logits: Vector, prompt: Sequence[int], answer: Sequence[int]) -> Vector:
        params = self._params
        logits = self._mask_banned(logits)
        read = len(prompt) + len(answer)
        if len(answer) < params.min_new_tokens or read < params.min_length:
            ban(logits, self._ends)
        if params.banned_first_ids and not answer:
            ban(logits, params.banned_first_ids)
        if params.banned_sequences:
            ban_sequences(logits, [*prompt, *answer], params.banned_sequences)
        if self._matcher:
            logits = self._matcher.apply_mask(logits, answer)
        if params.logit_bias:
            add_bias(logits, params.logit_bias)
        if params.repetition_penalty != 1:
            penalize_repetition(logits, [*prompt, *answer], params.repetition_penalty)
        if answer and (params.presence_penalty or params.frequency_penalty):
            penalize_presence_and_frequency(
                logits, answer, params.presence_penalty, params.frequency_penalty
            )
        if params.no_repeat_ngram_size:
            no_repeat_ngram(logits, [*prompt, *answer], params.no_repeat_ngram_size)
        for processor in params.processors:
            logits = self._mask_banned(processor([*prompt, *answer], logits))
        return logits

    def _mask_banned(self, logits: Vector) -> Vector:
        """Return a copy in which banned ids and rows without a token are masked."""
        logits = logits.copy()
        ban(logits, self._banned)
        return logits

    def _warp(self, logits: Vector) -> tuple[Vector, NDArray[np.intp] | None]:
        """Apply temperature and filters; the ids are None if the logits cover the vocabulary."""
        params, ids = self._params, None
        if 0 < params.top_k < len(logits):
            # Temperature does not change the top k, so the other filters only need those.
            ids = top_k_ids(logits, params.top_k)
            logits = logits[ids]
        logits = scale_temperature(logits, params.temperature)
        logits = keep_top_p(logits, params.top_p)
        logits = keep_min_p(logits, params.min_p)
        return keep_typical(logits, params.typical_p), ids


def _check_ids(name: str, ids: Iterable[int], rows: int) -> None:
    for token in ids:
        if not 0 <= token < rows:
            raise ParameterError(
                "{name} contains the id {id}, which is out of range: the model has ids 0 to "
                "{last}.",
                name=name,
                id=token,
                last=rows - 1,
            )


def top_logprobs(logits: Vector, token: int, count: int) -> tuple[float, dict[int, float]]:
    """Return the raw log-probability of `token`, and those of the `count` most likely ids."""
    shifted = logits.astype(np.float64) - float(logits.max())
    logprobs = shifted - math.log(float(np.exp(shifted).sum()))
    count = min(count, len(logits))
    top = np.argpartition(-logprobs, count - 1)[:count]
    top = top[np.argsort(-logprobs[top], kind="stable")]
    return float(logprobs[token]), {int(i): float(logprobs[i]) for i in top}
