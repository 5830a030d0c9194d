"""Logits to the next id: the sampling parameters, and the order in which filters are applied.

Order: bans, the end tokens before `min_new_tokens` and the constraint; logit bias; repetition,
presence and frequency penalty; no-repeat n-gram; DRY; the caller's processors; then, unless greedy,
top-n-sigma, top-k, temperature, top-p, min-p, typical-p, XTC, Mirostat; finally the draw with one
random number. This is the order of transformers' generate, with the filters that it lacks where
llama.cpp has them. A masked id has a logit of minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from issun.runtime.decoding.dry import NO_BREAKERS, SequenceBreakers, penalize_dry
from issun.runtime.decoding.filters import (
    MASKED,
    Vector,
    add_bias,
    ban,
    ban_sequences,
    draw,
    dynamic_temperature,
    exclude_top_choices,
    keep_low_surprise,
    keep_min_p,
    keep_top_p,
    keep_typical,
    log_softmax,
    no_repeat_ngram,
    penalize_presence_and_frequency,
    penalize_repetition,
    scale_temperature,
    surprise,
    top_k_ids,
    top_n_sigma_ids,
)
from issun.runtime.errors import (
    ParameterError,
    SamplingError,
    check_range,
    check_seed,
    check_switch,
    check_texts,
)
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

    @property
    def newline(self) -> str:
        """The spelling of newlines that the text of an answer replaces; empty: none."""

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
    0 disable these filters, and so do `top_n_sigma`, `dry_multiplier`, `xtc_probability`,
    `dynatemp_range` and `mirostat` 0. The last three need a temperature above 0. The repetition
    penalty, the n-grams and DRY consider prompt and answer, the other two penalties only the
    answer; DRY the last `dry_penalty_last_n` ids, or all if that is -1. `mirostat` 2 is Mirostat 2,
    which starts anew with each answer. `banned_ids` None bans `<unk>`; logit rows without a token
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
    top_n_sigma: float = 0.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
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
        check_range("temperature", self.temperature, number, 0, 100)
        check_range("top_k", self.top_k, whole, 0, math.inf)
        check_range("top_p", self.top_p, number, 0, 1, exclusive=True)
        check_range("min_p", self.min_p, number, 0, 1)
        check_range("typical_p", self.typical_p, number, 0, 1, exclusive=True)
        check_range("repetition_penalty", self.repetition_penalty, number, 0, 100, exclusive=True)
        check_range("presence_penalty", self.presence_penalty, number, -100, 100)
        check_range("frequency_penalty", self.frequency_penalty, number, -100, 100)
        check_range("no_repeat_ngram_size", self.no_repeat_ngram_size, whole, 0, math.inf)
        check_range("top_n_sigma", self.top_n_sigma, number, 0, 100)
        check_range("dynatemp_range", self.dynatemp_range, number, 0, 100)
        check_range("dynatemp_exponent", self.dynatemp_exponent, number, 0, 100, exclusive=True)
        check_range("xtc_probability", self.xtc_probability, number, 0, 1)
        # Two tokens cannot both be more likely than a half.
        check_range("xtc_threshold", self.xtc_threshold, number, 0, 0.5, exclusive=True)
        check_range("dry_multiplier", self.dry_multiplier, number, 0, 100)
        check_range("dry_base", self.dry_base, number, 1, 100)
        check_range("dry_allowed_length", self.dry_allowed_length, whole, 1, math.inf)
        check_range("dry_penalty_last_n", self.dry_penalty_last_n, whole, -1, math.inf)
        check_range("mirostat_tau", self.mirostat_tau, number, 0, 100)
        check_range("mirostat_eta", self.mirostat_eta, number, 0, 1)
        if self.mirostat not in (0, 2) or isinstance(self.mirostat, bool):
            raise ParameterError(
                "mirostat is {value!r}, it must be 0 (off) or 2.", value=self.mirostat
            )
        self._check_greedy()
        check_range("max_new_tokens", self.max_new_tokens, whole, 1, math.inf)
        check_range("min_length", self.min_length, whole, 0, math.inf)
        check_range("min_new_tokens", self.min_new_tokens, whole, 0, math.inf)
        if self.min_new_tokens > self.max_new_tokens:
            raise ParameterError(
                "min_new_tokens is {low}, it must be at most max_new_tokens, which is {high}.",
                low=self.min_new_tokens,
                high=self.max_new_tokens,
            )
        check_range("logprobs", self.logprobs, whole, 0, math.inf)
        check_switch("lookup", self.lookup)
        if self.seed is not None:
            check_seed(self.seed)
        if not isinstance(self.logit_bias, Mapping):
            raise ParameterError(
                "logit_bias is {value!r}, it must map ids to numbers.", value=self.logit_bias
            )
        for token in self.banned_ids if self.banned_ids is not None else ():
            check_range("banned_ids", token, whole, 0, math.inf)
        for token in self.banned_first_ids:
            check_range("banned_first_ids", token, whole, 0, math.inf)
        for sequence in self.banned_sequences:
            check_range("the length of a banned sequence", len(sequence), whole, 1, math.inf)
            for token in sequence:
                check_range("banned_sequences", token, whole, 0, math.inf)
        for token, bias in self.logit_bias.items():
            check_range("logit_bias", token, whole, 0, math.inf)
            check_range(f"logit_bias[{token}]", bias, number, -math.inf, 1e4)
        check_texts("stop", self.stop)
        check_texts("dry_sequence_breakers", self.dry_sequence_breakers)

    def _check_greedy(self) -> None:
        """Raise ParameterError for a filter that greedy decoding would leave without effect."""
        for name in ("dynatemp_range", "xtc_probability", "mirostat"):
            if self.temperature == 0 and (value := getattr(self, name)):
                raise ParameterError(
                    "{name} is {value!r}, which has no effect at temperature 0: set it to 0, or "
                    "raise the temperature.",
                    name=name,
                    value=value,
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
    """Samples the tokens of one answer.

    Owns the random generator, the grammar's state, and the largest surprise that Mirostat allows.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocabulary: Vocabulary,
        rng: np.random.Generator,
        breakers: SequenceBreakers = NO_BREAKERS,
    ) -> None:
        """`breakers` are the sequence breakers of `params`, for DRY."""
        self._params, self._rng, self._breakers = params, rng, breakers
        self._max_surprise = 2.0 * params.mirostat_tau  # bits
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
        if _highest(logits) == MASKED:
            raise SamplingError("No token can be sampled: all are banned.")
        if self._params.temperature == 0:
            return int(logits.argmax())
        logits, ids = self._warp(logits)
        index = draw(logits, float(self._rng.random()))
        if self._params.mirostat:
            # Of the truncated distribution, as in llama.cpp; the authors' code takes the whole one.
            error = surprise(logits, index) - self._params.mirostat_tau
            self._max_surprise -= self._params.mirostat_eta * error
        return index if ids is None else int(ids[index])

    def log_probabilities(
        self, logits: Vector, prompt: Sequence[int], answer: Sequence[int]
    ) -> Vector:
        """Return the log-probabilities of the next id, with bans, bias and penalties on top.

        Beam search in transformers applies its processors to log-probabilities, not to logits.
        Raises SamplingError for NaN.
        """
        processed = self._process(log_softmax(logits), prompt, answer)
        _highest(processed)
        return processed

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
        if params.dry_multiplier:
            self._penalize_dry(logits, [*prompt, *answer])
        for processor in params.processors:
            logits = self._mask_banned(processor([*prompt, *answer], logits))
        return logits

    def _penalize_dry(self, logits: Vector, seen: list[int]) -> None:
        params, last = self._params, self._params.dry_penalty_last_n
        penalize_dry(
            logits,
            seen if last == -1 else seen[max(0, len(seen) - last) :],
            multiplier=params.dry_multiplier,
            base=params.dry_base,
            allowed_length=params.dry_allowed_length,
            breakers=self._breakers,
        )

    def _mask_banned(self, logits: Vector) -> Vector:
        """Return a copy in which banned ids and rows without a token are masked."""
        logits = logits.copy()
        ban(logits, self._banned)
        return logits

    def _warp(self, logits: Vector) -> tuple[Vector, NDArray[np.intp] | None]:
        """Apply temperature and filters; the ids are None if the logits cover the vocabulary."""
        params, ids = self._params, None
        if params.top_n_sigma:
            ids = top_n_sigma_ids(logits, params.top_n_sigma)
            logits = logits[ids]
        if 0 < params.top_k < len(logits):
            # Temperature does not change the top k, so the other filters only need those.
            kept = top_k_ids(logits, params.top_k)
            ids, logits = kept if ids is None else ids[kept], logits[kept]
        temperature = params.temperature
        if params.dynatemp_range:
            temperature = dynamic_temperature(
                logits, temperature, params.dynatemp_range, params.dynatemp_exponent
            )
        logits = scale_temperature(logits, temperature)
        logits = keep_top_p(logits, params.top_p)
        logits = keep_min_p(logits, params.min_p)
        logits = keep_typical(logits, params.typical_p)
        if params.xtc_probability and self._rng.random() < params.xtc_probability:
            logits = exclude_top_choices(logits, params.xtc_threshold)
        if params.mirostat:
            logits = keep_low_surprise(logits, self._max_surprise)
        return logits, ids


def _highest(logits: Vector) -> np.float32:
    """Return the largest of `logits`; raises SamplingError for NaN and infinity."""
    highest: np.float32 = logits.max()  # NaN if any logit is
    if math.isnan(highest) or highest == math.inf:
        raise SamplingError("The model returned logits that are not numbers (NaN).")
    return highest


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


def seeded(params: SamplingParams, index: int) -> SamplingParams:
    """Return the parameters of answer `index` to one prompt: with a seed, answer i has seed + i."""
    return params if params.seed is None else replace(params, seed=(params.seed + index) % 2**64)


def top_logprobs(logits: Vector, token: int, count: int) -> tuple[float, dict[int, float]]:
    """Return the raw log-probability of `token`, and those of the `count` most likely ids."""
    shifted = logits.astype(np.float64) - float(logits.max())
    logprobs = shifted - math.log(float(np.exp(shifted).sum()))
    count = min(count, len(logits))
    top = np.argpartition(-logprobs, count - 1)[:count]
    top = top[np.argsort(-logprobs[top], kind="stable")]
    return float(logprobs[token]), {int(i): float(logprobs[i]) for i in top}
