"""Log-probabilities of given tokens: of a text in windows, and of continuations of one prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from issun.runtime.decoding.decoder import (
    PREFILL_CHUNK,
    Decoder,
    IssunDecoder,
    Logits,
    split_chunks,
)
from issun.runtime.decoding.kv_cache import Cache, KVCache
from issun.runtime.errors import ContextError

Logprobs = NDArray[np.float64]  # nats
Progress = Callable[[int, int], object]  # tokens that were scored, and that will be


class Window(NamedTuple):
    """Ids from `start` to before `stop` are read together; those from `first` on are scored."""

    start: int
    first: int
    stop: int


def cut_windows(count: int, size: int, stride: int, *, first: int) -> Iterator[Window]:
    """Cut `count` ids into windows of at most `size`, each `stride` after the one before.

    A window scores what the ones before have not, beginning with the id at `first`.
    """
    for start in range(0, count, stride):
        stop = min(start + size, count)
        yield Window(start, first, stop)
        if stop == count:
            return
        first = stop


def token_logprobs(logits: Logits, tokens: Sequence[int]) -> Logprobs:
    """Return the log-probability of each of `tokens`, given a row of logits for each.

    Exponentials are float32, their sums float64.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found = shifted[np.arange(len(tokens)), np.asarray(tokens, np.int64)].astype(np.float64)
    totals = np.exp(shifted, out=shifted).sum(axis=-1, dtype=np.float64)
    logprobs: Logprobs = found - np.log(totals)
    return logprobs


def score_window(decoder: Decoder, cache: Cache, ids: Sequence[int], first: int) -> Logprobs:
    """Return the log-probability of each of `ids` from index `first` on, which is at least 1."""
    cache.rewind(0)
    found, done = [np.empty(0)], 0
    for chunk in split_chunks(ids):
        following = ids[max(first, done + 1) : done + 1 + len(chunk)]
        stop = min(done + len(chunk), len(ids) - 1) - done  # the last id predicts nothing
        logits = decoder.forward(cache, [chunk], range(stop - len(following), stop))
        found.append(token_logprobs(logits, following))
        done += len(chunk)
    return np.concatenate(found)


def score_continuations(
    decoder: Decoder, prompt: Sequence[int], continuations: Sequence[Sequence[int]], slots: int
) -> list[Logprobs]:
    """Return the log-probabilities of the ids of each continuation after `prompt`.

    The prompt is computed once, and up to `slots` continuations form a batch. Raises ContextError
    if one does not fit into the context, before any work.
    """
    longest = len(prompt) + max(map(len, continuations))
    if longest > decoder.n_positions:
        raise ContextError(
            "{tokens:,} tokens do not fit into the context of {limit:,}.",
            tokens=longest,
            limit=decoder.n_positions,
        )
    if isinstance(decoder, IssunDecoder):
        slots = min(slots, len(continuations))
        cache: Cache = decoder.new_cache(slots, longest)
    else:
        slots, cache = 1, decoder.new_cache()
    try:
        first = decoder.prefill(cache, prompt)[np.newaxis]
        if isinstance(cache, KVCache):
            for slot in range(1, slots):
                cache.copy(cache, 0, slot)
        # Longest first, so that the continuations which are left always fill the first slots.
        order = sorted(range(len(continuations)), key=lambda i: -len(continuations[i]))
        found: dict[int, Logprobs] = {}
        for start in range(0, len(order), slots):
            indices = order[start : start + slots]
            group = [continuations[index] for index in indices]
            later = _score_group(decoder, cache, group, max(8, PREFILL_CHUNK // slots))
            for slot, (index, ids) in enumerate(zip(indices, group, strict=True)):
                found[index] = np.concatenate([token_logprobs(first, ids[:1]), *later[slot]])
                cache.rewind(len(prompt), slot)
        return [found[index] for index in range(len(continuations))]
    finally:
        cache.close()


def _score_group(
    decoder: Decoder, cache: Cache, group: Sequence[Sequence[int]], width: int
) -> list[list[Logprobs]]:
    """Return the log-probabilities of all ids but the first, `width` ids of a slot at a time.

    The last id is computed too: attention rounds a single row differently.
    """
    parts = [list(split_chunks(ids, width)) if len(ids) > 1 else [] for ids in group]
    done, found = [0] * len(group), [list[Logprobs]() for _ in group]
    for step in range(len(parts[0])):
        chunks = [chunks[step] for chunks in parts if len(chunks) > step]
        padded = max(map(len, chunks))
        following = [
            ids[before + 1 : before + 1 + len(chunk)]
            for ids, before, chunk in zip(group, done, chunks, strict=False)
        ]
        rows = [
            slot * padded + row for slot, ids in enumerate(following) for row in range(len(ids))
        ]
        logits = decoder.forward(cache, chunks, rows)
        logprobs = token_logprobs(logits, list(chain(*following)))
        for slot, (chunk, ids) in enumerate(zip(chunks, following, strict=True)):
            found[slot].append(logprobs[: len(ids)])
            logprobs = logprobs[len(ids) :]
            done[slot] += len(chunk)
    return found
