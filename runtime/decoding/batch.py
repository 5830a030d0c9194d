"""Continuous batching: sequences join and leave a batch that decodes one token per step.

Short prompts are prefilled together, and a prefix shared by several prompts is computed once. With
float32 and int8 linears, a row of logits does not depend on the other rows of the batch, so every
answer is the one that its prompt gets alone. The 4-bit kernels round a single row differently from
several, and attention over a float32 KV cache depends on how a prompt is split into chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from issun.runtime.decoding.answer import Completion
from issun.runtime.decoding.decoder import PREFILL_CHUNK, Decoder, IssunDecoder
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.generate import RequestState, Segment, check_prompt
from issun.runtime.decoding.prefill import (
    Prefill,
    can_prefill_together,
    prefill_chunks,
    should_wait,
)
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.decoding.slots import Slots
from issun.runtime.errors import ParameterError
from issun.runtime.text.prefix import common_prefix

MakeState = Callable[[list[int], SamplingParams, int], RequestState]


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt with its sampling parameters, its index among the prompts, and its adapter."""

    index: int
    prompt: list[int]
    params: SamplingParams
    adapter: str | None = None


def make_jobs(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    params: SamplingParams | Sequence[SamplingParams],
    adapters: str | Sequence[str | None] | None = None,
) -> list[Job]:
    """Return one job per prompt.

    Raises as `check_prompt`, and ParameterError if `params` or `adapters` has another length.
    """
    if adapters is None or isinstance(adapters, str):
        adapters = [adapters] * len(prompts)
    if len(adapters) != len(prompts):
        raise ParameterError(
            "There are {prompts} prompts and {adapters} adapters: pass one for all prompts, or "
            "one for each.",
            prompts=len(prompts),
            adapters=len(adapters),
        )
    if isinstance(params, SamplingParams):
        params = [params] * len(prompts)
    if len(params) != len(prompts):
        raise ParameterError(
            "There are {prompts} prompts and {params} sampling parameters: pass one for all "
            "prompts, or one for each.",
            prompts=len(prompts),
            params=len(params),
        )
    jobs: list[Job] = []
    for prompt, equal in groupby(prompts):
        check_prompt(decoder, prompt)
        for index, _ in enumerate(equal, len(jobs)):
            jobs.append(Job(index, prompt, params[index], adapters[index]))
    return jobs


def generate_batch(
    decoder: IssunDecoder,
    jobs: Sequence[Job],
    make_state: MakeState,
    *,
    slots: int,
) -> Iterator[tuple[int, Completion]]:
    """Run `jobs` in up to `slots` slots; yield a job's index and its answer as soon as it ends.

    `make_state` receives a prompt, its parameters and how many of its tokens need no prefill. The
    memory of the slots grows with their content and is freed at the end.
    """
    if not jobs:
        return
    longest = max(len(job.prompt) + job.params.max_new_tokens for job in jobs)
    cache = decoder.new_cache(min(slots, len(jobs)), min(longest, decoder.n_positions))
    batch_slots, waiting = Slots(cache), deque(jobs)
    running: list[_Sequence] = []  # the index is the slot

    def draw(index: int, logits: Vector) -> Iterator[tuple[int, Completion]]:
        sequence = running[index]
        if completion := sequence.draw(logits):
            last = running.pop()
            if index < len(running):
                running[index] = last
            next_prompt = waiting[0].prompt if waiting else []
            cache.rewind(common_prefix(cache.ids[index], next_prompt), index)
            batch_slots.remove(index)
            yield sequence.job.index, completion

    try:
        while waiting or running:
            while waiting and not batch_slots.full:
                new = _admit(batch_slots, waiting, make_state)
                while any(sequence.remaining for sequence in new):
                    prefill_chunks(decoder, batch_slots, new, PREFILL_CHUNK)
                batch_slots.activate()
                running += new
                for sequence in reversed(new):  # the last of the running sequences
                    yield from draw(running.index(sequence), sequence.logits)
            if running:
                logits = decoder.forward(cache, [[s.token] for s in running], range(len(running)))
                for index in reversed(range(len(running))):
                    yield from draw(index, logits[index])
    finally:
        cache.close()


def _admit(batch_slots: Slots, waiting: deque[Job], make_state: MakeState) -> list[_Sequence]:
    """Give slots to the next jobs that can be prefilled together, at least one."""
    new: list[_Sequence] = []
    while waiting and not batch_slots.full:
        job = waiting[0]
        prompt, params = job.prompt, job.params
        reusable = batch_slots.reusable(prompt, job.adapter)
        together = can_prefill_together(prompt, reusable, new, PREFILL_CHUNK)
        if not together or should_wait(prompt, reusable, new, job.adapter):
            break
        batch_slots.join(prompt, adapter=job.adapter)
        new.append(_Sequence(waiting.popleft(), make_state(prompt, params, reusable), reusable))
    return new


class _Sequence(Prefill):
    """A job that has a slot, and its answer so far."""

    def __init__(self, job: Job, state: RequestState, reusable: int) -> None:
        super().__init__(job.prompt, reusable, job.adapter)
        self.job, self._state = job, state
        self._segments: list[Segment] = []

    @property
    def token(self) -> int:
        """The token to decode next."""
        return self._segments[-1].id

    def draw(self, logits: Vector) -> Completion | None:
        """Sample the next token; return the answer if that ends it."""
        segment = self._state.add(logits)
        self._segments.append(segment)
        if segment.finish_reason is None:
            return None
        return Completion(
            "".join(s.text for s in self._segments),
            [s.id for s in self._segments if s.id not in self._state.ends],
            segment.finish_reason,
            segment.timings,
            logprobs=tuple(s.logprob for s in self._segments if s.logprob is not None),
        )
