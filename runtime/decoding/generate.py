"""The generation loop: yields one segment per token."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, pairwise
from typing import Any, Literal

from issun.runtime.decoding.decoder import Decoder, split_chunks
from issun.runtime.decoding.drafts import Drafts
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.decoding.latency import Percentiles, percentiles
from issun.runtime.decoding.prompt_cache import PromptCache
from issun.runtime.decoding.sampling import Sampler, SamplingParams, top_logprobs
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.text.stream import TextStream

FinishReason = Literal["stop", "length", "cancelled"]
Clock = Callable[[], float]
Stop = Callable[[], bool]


def never() -> bool:
    """Never stop."""
    return False


@dataclass(frozen=True, slots=True)
class Timings:
    """Token counts and seconds of one answer, up to its latest token.

    `token_times` are those of all tokens since the start; they may include later tokens, and are
    empty if they are not known.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    time_to_first_token: float = 0.0  # TTFT
    total_time: float = 0.0
    token_times: Sequence[float] = field(default=(), repr=False, compare=False)

    @property
    def prefill_tokens_per_second(self) -> float:
        """Computed prompt tokens divided by the time to the first token."""
        computed = self.prompt_tokens - self.reused_tokens
        return computed / self.time_to_first_token if self.time_to_first_token else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Throughput: tokens after the first one divided by the time after it."""
        seconds = self.total_time - self.time_to_first_token
        return (self.new_tokens - 1) / seconds if self.new_tokens > 1 and seconds else 0.0

    @property
    def time_per_output_token(self) -> float:
        """TPOT: the mean time of a token after the first one, 0 before the second."""
        return 1 / self.tokens_per_second if self.tokens_per_second else 0.0

    @property
    def inter_token_latency(self) -> Percentiles | None:
        """ITL: percentiles of the time between tokens; None without two tokens of known times.

        Draft tokens that are accepted together arrive at once, so the time between them is small.
        """
        times = self.token_times[: self.new_tokens]
        return percentiles([later - earlier for earlier, later in pairwise(times)])

    def report(self) -> dict[str, Any]:
        """All values as JSON has them, without the time of each token."""
        found = {name: value for name, value in asdict(self).items() if name != "token_times"}
        itl = self.inter_token_latency
        return found | {
            "time_per_output_token": self.time_per_output_token,
            "inter_token_latency": asdict(itl) if itl else None,
            "tokens_per_second": self.tokens_per_second,
        }


@dataclass(frozen=True, slots=True)
class Logprob:
    """Raw log-probabilities of the sampled token and of the most likely ones, by id."""

    drawn: float
    top: dict[int, float]


@dataclass(frozen=True, slots=True)
class Segment:
    """One token of an answer, with the text that it completes; the last has a finish reason."""

    id: int
    text: str
    finish_reason: FinishReason | None
    timings: Timings
    logprob: Logprob | None = None


class RequestState:
    """The state of one answer: turns logits into segments until one has a finish reason."""

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        sampler: Sampler,
        text: TextStream,
        ends: Collection[int],
        n_positions: int,
        answer: Sequence[int] = (),
        reused: int = 0,
        started: float | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._prompt, self._drawn, self._params = prompt, list(answer), params
        self._sampler, self._text, self.ends, self._clock = sampler, text, ends, clock
        read = len(prompt) + len(answer)
        self._limit = min(params.max_new_tokens, n_positions - read)
        self._token_times: list[float] = []
        self._timings = Timings(
            prompt_tokens=read, reused_tokens=reused, token_times=self._token_times
        )
        self._started = clock() if started is None else started

    @property
    def remaining_tokens(self) -> int:
        """How many tokens the answer may still get."""
        return self._limit - self._timings.new_tokens

    @property
    def needs_prepare(self) -> bool:
        """Whether `prepare` does anything."""
        return self._sampler.needs_prepare

    def prepare(self) -> None:
        """Precompute the part of the next `add` that needs no logits; any thread may call it."""
        self._sampler.prepare(self._drawn)

    def add(self, logits: Vector) -> Segment:
        """Sample the next token and return its segment."""
        token = self._sampler.sample(logits, self._prompt, self._drawn)
        wanted = self._params.logprobs
        logprob = Logprob(*top_logprobs(logits, token, wanted)) if wanted else None
        now = self._clock() - self._started
        self._token_times.append(now)
        timings = self._timings = replace(
            self._timings,
            new_tokens=self._timings.new_tokens + 1,
            time_to_first_token=self._timings.time_to_first_token or now,
            total_time=now,
        )
        if token in self.ends:
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
    ends: Collection[int],
    answer: Sequence[int] = (),
    prompt_cache: PromptCache | None = None,
    drafts: Drafts | None = None,
    stop: Stop = never,
    clock: Clock = time.perf_counter,
) -> Generator[Segment, None, None]:
    """Generate the answer to `prompt`, one segment per token; closing the generator cancels.

    `cache` is rewound to its common prefix with the prompt and holds prompt and answer afterwards.
    If it is empty, a prefix that `prompt_cache` has is loaded instead of computed. `answer` is the
    beginning of an answer to be continued.

    `stop` is called before each chunk of the prompt. Once it returns true, the generator ends
    without a finish reason, and `cache` keeps the chunks computed so far.

    With `drafts`, made for prompt and answer, draft tokens are verified several at a time.

    The last segment has the finish reason: `stop` for an end token or a stop string, `length` for
    `max_new_tokens` or the end of the context. Raises as `check_prompt` does, before any work.
    """
    ids = [*prompt, *answer]
    check_prompt(decoder, ids)
    started = clock()
    prefix_length = prompt_cache.load(cache, prompt) if prompt_cache else 0
    shared = cache.keep_common_prefix(ids)
    state = RequestState(
        prompt,
        params,
        sampler=sampler,
        text=text,
        ends=ends,
        n_positions=decoder.n_positions,
        answer=answer,
        reused=shared,
        started=started,
        clock=clock,
    )
    *chunks, last = chain(
        split_chunks(ids[:prefix_length]), split_chunks(ids[max(shared, prefix_length) :])
    )
    for chunk in chunks:
        if stop():
            return
        decoder.forward(cache, [chunk], [])
    if stop():
        return
    logits = decoder.forward(cache, [last], [len(last) - 1])[0]
    segment = state.add(logits)
    yield segment
    if prefix_length and prompt_cache:  # after the first token, so as not to delay it
        prompt_cache.store(cache)
    if drafts:
        drafts.predict(int(logits.argmax()))
        drafts.accept(segment.id)
    while segment.finish_reason is None:
        if drafts:
            segment = yield from _decode_with_draft(decoder, cache, state, drafts, segment.id)
        else:
            segment = state.add(decoder.step(cache, segment.id))
            yield segment


def prefill(
    decoder: Decoder,
    cache: Cache,
    ids: Sequence[int],
    *,
    prompt_cache: PromptCache | None = None,
    stop: Stop = never,
) -> int:
    """Make `cache` hold `ids`, and return how many of them were computed.

    `stop` and `prompt_cache` are those of `generate`. Raises as `check_prompt` does.
    """
    check_prompt(decoder, ids)
    prefix_length = prompt_cache.load(cache, ids) if prompt_cache else 0
    shared = cache.keep_common_prefix(ids)
    rest = ids[max(shared, prefix_length) :]
    # Attention rounds a single row differently, so it is left for the next prefill.
    for chunk in chain(
        split_chunks(ids[:prefix_length]), split_chunks(rest) if len(rest) > 1 else ()
    ):
        if stop():
            break
        decoder.forward(cache, [chunk], [])
    if prefix_length and prompt_cache:
        prompt_cache.store(cache)
    return len(cache.ids[0]) - shared


def _decode_with_draft(
    decoder: Decoder, cache: Cache, state: RequestState, drafts: Drafts, token: int
) -> Generator[Segment, None, Segment]:
    """Decode `token` and a draft in one step; yield the accepted tokens and the one after them.

    Each token is sampled from the logits it would be sampled from without drafts and with the same
    random number, so drafts affect only the speed.
    """
    held = len(cache.ids[0])
    draft = drafts.draft(min(state.remaining_tokens - 1, decoder.n_positions - held - 1))
    ids = [token, *(guess.token for guess in draft)]
    logits = decoder.forward(cache, [ids], range(len(ids)))
    accepted = 0
    try:
        while True:
            drafts.predict(int(logits[accepted].argmax()))
            segment = state.add(logits[accepted])
            if not drafts.accept(segment.id) or segment.finish_reason:
                break
            accepted += 1
            yield segment
    finally:
        cache.rewind(held + 1 + accepted)  # also if cancelled within the draft
    yield segment
    return segment


def check_prompt(decoder: Decoder, ids: Sequence[int]) -> None:
    """Raise ContextError if `ids` leave no room for a token, ParameterError for invalid ids."""
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
