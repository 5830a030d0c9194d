"""Many prompts at once: sequences join and leave a batch that decodes one token a step.

A prompt is read alone, as it is for a single answer, and what it leaves in the KV cache is copied
into a slot. The active slots stay the first ones, so that they are one batch in the graph. With
float32 and int8 linears a row of logits does not depend on the rows beside it, and every answer
is the one that its prompt gets alone; the 4-bit kernels round one row otherwise than several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from issun.runtime.answer import Completion
from issun.runtime.decoder import Decoder, IssunDecoder, KVCache, Logits
from issun.runtime.errors import ParameterError
from issun.runtime.generate import Segment, Writer, check_prompt
from issun.runtime.sampling import SamplingParams, Vector


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt, how it is to be answered, and its place among the prompts."""

    place: int
    prompt: list[int]
    params: SamplingParams


def make_jobs(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    params: SamplingParams | Sequence[SamplingParams],
) -> list[Job]:
    """A job for each prompt; raises as `check_prompt` does, and for too few or many `params`."""
    if isinstance(params, SamplingParams):
        params = [params] * len(prompts)
    if len(params) != len(prompts):
        raise ParameterError(
            "There are {prompts} prompts and {params} sampling parameters: give one for all "
            "prompts, or one for each.",
            prompts=len(prompts),
            params=len(params),
        )
    jobs: list[Job] = []
    for prompt, equal in groupby(prompts):
        check_prompt(decoder, prompt)
        jobs += [Job(place, prompt, params[place]) for place, _ in enumerate(equal, len(jobs))]
    return jobs


def generate_batch(
    decoder: IssunDecoder,
    jobs: Sequence[Job],
    make_writer: Callable[[list[int], SamplingParams, int], Writer],
    *,
    slots: int,
) -> Iterator[tuple[int, Completion]]:
    """Answer `jobs` in up to `slots` slots; gives a job's place and its answer when that ends.

    `make_writer` gets a prompt, its parameters and how many of its tokens need not be read. The
    memory of the slots grows with what they hold and is given back at the end.
    """
    if not jobs:
        return
    longest = max(len(job.prompt) + job.params.max_new_tokens for job in jobs)
    longest = min(longest, decoder.n_positions)
    batch = decoder.new_cache(min(slots, len(jobs)), longest)
    reader = _Reader(decoder, decoder.new_cache(1, longest))
    waiting = deque(jobs)
    running: list[_Running] = []  # the first slots, each in that of its place
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                job = waiting.popleft()
                writer = make_writer(job.prompt, job.params, reader.known(job.prompt))
                new = _Running(job, writer)
                if completion := new.add(reader.read(job.prompt)):
                    yield job.place, completion
                else:
                    batch.copy(reader.cache, 0, len(running))
                    running.append(new)
            if not running:
                return
            logits = decoder.forward(batch, [[r.token] for r in running], range(len(running)))
            for slot in reversed(range(len(running))):
                if completion := running[slot].add(logits[slot]):
                    yield running[slot].job.place, completion
                    last = running.pop()
                    if slot < len(running):
                        running[slot] = last
                        batch.copy(batch, len(running), slot)
    finally:
        batch.close()
        reader.cache.close()


class _Reader:
    """Reads prompts in a cache of one slot, and remembers the last."""

    def __init__(self, decoder: IssunDecoder, cache: KVCache) -> None:
        self._decoder, self.cache = decoder, cache
        self._logits: Logits | None = None

    def known(self, prompt: list[int]) -> int:
        """How many of the prompt's tokens need not be read: all or none."""
        return len(prompt) if self._logits is not None and self.cache.ids[0] == prompt else 0

    def read(self, prompt: list[int]) -> Logits:
        """The (vocab_size,) logits behind `prompt`, whose keys and values the cache then holds."""
        if self._logits is None or not self.known(prompt):
            self.cache.rewind(0)
            self._logits = self._decoder.prefill(self.cache, prompt)
        return self._logits


class _Running:
    """A job with what it has said so far."""

    def __init__(self, job: Job, writer: Writer) -> None:
        self.job, self._writer = job, writer
        self._segments: list[Segment] = []

    @property
    def token(self) -> int:
        """The token that is to be read next."""
        return self._segments[-1].id

    def add(self, logits: Vector) -> Completion | None:
        """Draw the next token; gives the answer when that ends it."""
        segment = self._writer.add(logits)
        self._segments.append(segment)
        if segment.finish_reason is None:
            return None
        return Completion(
            "".join(s.text for s in self._segments),
            [s.id for s in self._segments if s.id != self._writer.eos],
            segment.finish_reason,
            segment.timings,
            logprobs=tuple(s.logprob for s in self._segments if s.logprob is not None),
        )
