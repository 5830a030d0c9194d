"""The one loop: prompt ids -> tokens, as a generator of small records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from issun.runtime.decoder import Cache, Decoder
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.sampling import Sampler, SamplingParams, Vector, top_logprobs
from issun.runtime.stream import TextStream

FinishReason = Literal["stop", "length", "cancelled"]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Timings:
    """Counts of tokens and seconds of one answer, up to its latest token."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    time_to_first_token: float = 0.0
    total_time: float = 0.0

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens that were computed, by the time to the first token."""
        computed = self.prompt_tokens - self.reused_tokens
        return computed / self.time_to_first_token if self.time_to_first_token else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first, by the time after the first."""
        seconds = self.total_time - self.time_to_first_token
        return (self.new_tokens - 1) / seconds if self.new_tokens > 1 and seconds else 0.0


@dataclass(frozen=True, slots=True)
class Logprob:
    """Raw log-probability of the drawn token, and of the likeliest ones by id."""

    drawn: float
    top: dict[int, float]


@dataclass(frozen=True, slots=True)
class Segment:
    """One token of an answer: its id, the text that it made certain, and the end if it is one."""

    id: int
    text: str
    finish_reason: FinishReason | None
    timings: Timings
    logprob: Logprob | None = None


class Writer:
    """One answer as it grows: logits in, a segment out, until one has a finish reason."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        sampler: Sampler,
        text: TextStream,
        eos: int | None,
        n_positions: int,
        answer: Sequence[int] = (),
        reused: int = 0,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._prompt, self._drawn, self._params = prompt, list(answer), params
        self._sampler, self._text, self.eos, self._clock = sampler, text, eos, clock
        read = len(prompt) + len(answer)
        self._limit = min(params.max_new_tokens, n_positions - read)
        self._timings = Timings(prompt_tokens=read, reused_tokens=reused)
        self._started = clock()

    def add(self, logits: Vector) -> Segment:
        """Draw the token behind what was read, and say what it makes of the text."""
        token = self._sampler.sample(logits, self._prompt, self._drawn)
        wanted = self._params.logprobs
        logprob = Logprob(*top_logprobs(logits, token, wanted)) if wanted else None
        now = self._clock() - self._started
        timings = self._timings = replace(
            self._timings,
            new_tokens=self._timings.new_tokens + 1,
            time_to_first_token=self._timings.time_to_first_token or now,
            total_time=now,
        )
        if token == self.eos:
            return Segment(token, self._text.finish(), "stop", timings, logprob)
        self._drawn.append(token)
        new = self._text.push(token)
        reason: FinishReason | None = "stop" if self._text.stopped else None
        if timings.new_tokens == self._limit and not self._text.stopped:
            new, reason = new + self._text.pause(), "length"
        return Segment(token, new, reason, timings, logprob)


def generate(
    decoder: Decoder,
    cache: Cache,
    prompt: Sequence[int],
    params: SamplingParams,
    *,
    sampler: Sampler,
    text: TextStream,
    eos: int | None,
    answer: Sequence[int] = (),
    clock: Clock = time.perf_counter,
) -> Iterator[Segment]:
    """Answer `prompt` token by token; closing the generator cancels.

    `cache` is rewound to what it shares with the prompt, and holds prompt and answer afterwards.
    `answer` is the beginning of an answer that is to be continued. The last segment has the
    finish reason: `stop` at the end token or a stop string, `length` at `max_new_tokens` or at
    the end of the context. Raises as `check_prompt` does, before any work.
    """
    ids = [*prompt, *answer]
    check_prompt(decoder, ids)
    shared = cache.keep_common_prefix(ids)
    writer = Writer(
        prompt,
        params,
        sampler=sampler,
        text=text,
        eos=eos,
        n_positions=decoder.n_positions,
        answer=answer,
        reused=shared,
        clock=clock,
    )
    segment = writer.add(decoder.prefill(cache, ids[shared:]))
    yield segment
    while segment.finish_reason is None:
        segment = writer.add(decoder.step(cache, segment.id))
        yield segment


def check_prompt(decoder: Decoder, ids: Sequence[int]) -> None:
    """Raise ContextError when no token fits behind `ids`, ParameterError for ids out of range."""
    if not ids:
        raise ParameterError("The prompt is empty.")
    if len(ids) >= decoder.n_positions:
        raise ContextError(
            "The prompt has {tokens:,} tokens, which leaves no room for an answer in the context "
            "of {limit:,}.",
            tokens=len(ids),
            limit=decoder.n_positions,
        )
    decoder.check_ids(ids)
