"""Beam search on the slots of one KV cache: a beam is a slot, and beams share what they copied."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace

from issun.runtime.decoding.answer import Completion
from issun.runtime.decoding.beams import Beam, BeamParams, BeamSearch
from issun.runtime.decoding.decoder import PREFILL_CHUNK, IssunDecoder, Logits
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.generate import Clock, Timings, check_prompt
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.decoding.sampling import Sampler
from issun.runtime.errors import OutOfMemoryError, ParameterError, SamplingError
from issun.runtime.text.prefix import common_prefix
from issun.runtime.text.stream import TextStream
from issun.runtime.weights.memory_left import memory_left

MakeText = Callable[[], TextStream]


def beam_search(
    decoder: IssunDecoder,
    prompt: Sequence[int],
    params: BeamParams,
    *,
    sampler: Sampler,
    make_text: MakeText,
    ends: Collection[int],
    clock: Clock = time.perf_counter,
) -> list[Completion]:
    """Return the best answers to `prompt`, the best first, with their scores.

    There are fewer than `num_return_sequences` if fewer have been found. Raises as `check_prompt`
    does, OutOfMemoryError if the beams do not fit into memory, and SamplingError if every token is
    banned.
    """
    if not isinstance(params, BeamParams):
        raise ParameterError("beam_search takes BeamParams, not SamplingParams.")
    check_prompt(decoder, prompt)
    limit = min(params.max_new_tokens, decoder.n_positions - len(prompt))
    _check_memory(decoder, params.num_beams, len(prompt) + limit)
    started = clock()

    def stopped(ids: Sequence[int]) -> bool:
        text = make_text()
        for token in ids if params.stop else ():
            text.push(token)
        return text.stopped

    def log_probabilities(logits: Logits) -> list[Vector]:
        return [
            sampler.log_probabilities(logits[beam.slot], prompt, beam.ids)
            for beam in search.running
        ]

    search = BeamSearch(params, limit=limit, ends=ends, stopped=stopped)
    with closing(decoder.new_cache(params.num_beams, len(prompt) + limit)) as cache:
        logits = decoder.prefill(cache, prompt)
        first_token = clock() - started
        search.advance(log_probabilities(logits[None]))
        while not search.done:
            search.running = assign_slots(cache, search.running)
            search.advance(log_probabilities(_decode(decoder, cache, search.running)))
    if not search.finished:
        raise SamplingError("No token can be sampled: all are banned.")
    timings = Timings(
        prompt_tokens=len(prompt),
        time_to_first_token=first_token,
        total_time=clock() - started,
    )
    return [
        _completion(beam, make_text(), ends, timings)
        for beam in search.finished[: params.num_return_sequences]
    ]


def assign_slots(cache: KVCache, beams: Sequence[Beam]) -> list[Beam]:
    """Give each of `beams`, whose slots are still their parents', one of the first slots.

    The first child of a parent keeps its slot. Another child overwrites the unused slot that has
    the longest prefix in common with the parent; only what follows that prefix is copied.
    """
    free = set(range(len(beams))) - {beam.slot for beam in beams}
    taken, placed = set[int](), list[Beam]()
    for beam in beams:
        parent = slot = beam.slot
        if slot in taken or slot >= len(beams):
            shared = {slot: common_prefix(cache.ids[slot], cache.ids[parent]) for slot in free}
            slot = max(free, key=shared.__getitem__)
            free.remove(slot)
            cache.copy(cache, parent, slot, start=shared[slot])
        taken.add(slot)
        placed.append(replace(beam, slot=slot))
    return placed


def _decode(decoder: IssunDecoder, cache: KVCache, beams: Sequence[Beam]) -> Logits:
    """Run the last id of each beam; return the logits by slot, (len(beams), vocab_size)."""
    tokens = {beam.slot: beam.ids[-1] for beam in beams}
    slots = range(len(tokens))
    return decoder.forward(cache, [[tokens[slot]] for slot in slots], slots)


def _check_memory(decoder: IssunDecoder, num_beams: int, tokens: int) -> None:
    """Raise OutOfMemoryError unless so many beams of so many tokens fit into memory."""
    left = memory_left()
    beam_bytes = decoder.slot_bytes * tokens // (decoder.n_positions + PREFILL_CHUNK)
    if left is not None and num_beams * beam_bytes > left:
        raise OutOfMemoryError(
            "num_beams is {value}, but {tokens:,} tokens in each beam leave memory for {most}: use "
            "fewer beams or lower max_new_tokens.",
            value=num_beams,
            tokens=tokens,
            most=left // beam_bytes,
        )


def _completion(
    beam: Beam, text: TextStream, ends: Collection[int], timings: Timings
) -> Completion:
    ids = [token for token in beam.ids if token not in ends]
    segments = [text.push(token) for token in ids]
    if not text.stopped:
        segments.append(text.finish() if len(ids) < len(beam.ids) else text.pause())
    return Completion(
        "".join(segments),
        ids,
        beam.finish_reason or "length",
        replace(timings, new_tokens=len(beam.ids)),
        score=beam.score,
    )
