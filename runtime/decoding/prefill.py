"""Prefill: prompts on their way into a KV cache; short ones share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from issun.runtime.decoding.decoder import IssunDecoder, Logits, split_chunks
from issun.runtime.decoding.filters import Vector
from issun.runtime.decoding.slots import Slots
from issun.runtime.text.prefix import common_prefix

_WORTH_WAITING = 16  # tokens of a prefill in progress that are worth waiting for and copying


class Prefill:
    """A prompt in prefill: its remaining ids and, at the end, the logits of the last one."""

    logits: Vector

    def __init__(self, prompt: list[int], reusable: int, adapter: str | None = None) -> None:
        self.prompt, self.remaining, self.adapter = prompt, prompt[reusable:], adapter

    def logit_rows(self, size: int) -> range:
        """Return which rows of the next `size` tokens need logits."""
        return range(size - (size == len(self.remaining)), size)

    def advance(self, chunk: Sequence[int], logits: Logits) -> None:
        """Record that `chunk` was computed, with the logits of its rows."""
        self.remaining = self.remaining[len(chunk) :]
        if not self.remaining:
            self.logits = logits[-1]


def can_prefill_together(
    prompt: Sequence[int], reusable: int, prefills: Sequence[Prefill], max_tokens: int
) -> bool:
    """Return whether a prompt fits with `prefills` into one chunk of `max_tokens` tokens."""
    lengths = [len(prompt) - reusable, *(len(prefill.remaining) for prefill in prefills)]
    # A single row rounds differently from several, so it is run alone.
    return not prefills or (len(lengths) * max(lengths) <= max_tokens and min(lengths) > 1)


def should_wait(
    prompt: Sequence[int],
    reusable: int,
    prefills: Sequence[Prefill],
    adapter: str | None = None,
) -> bool:
    """Return whether a prefill in progress will provide a long prefix of `prompt` to copy."""
    same = [prefill for prefill in prefills if prefill.adapter == adapter]
    shared = max((common_prefix(prefill.prompt, prompt) for prefill in same), default=0)
    return shared > reusable + _WORTH_WAITING


def prefill_chunks(
    decoder: IssunDecoder, slots: Slots, prefills: Sequence[Prefill], max_tokens: int
) -> None:
    """Run up to `max_tokens` ids of each of `prefills`, which occupy the slots in prefill."""
    chunks = [next(split_chunks(prefill.remaining, max_tokens)) for prefill in prefills]
    width = max(map(len, chunks))
    logit_rows = [
        [width * index + row for row in prefill.logit_rows(len(chunk))]
        for index, (prefill, chunk) in enumerate(zip(prefills, chunks, strict=True))
    ]
    logits = decoder.forward(slots.cache, chunks, list(chain(*logit_rows)), first=slots.active)
    for prefill, chunk, chunk_rows in zip(prefills, chunks, logit_rows, strict=True):
        prefill.advance(chunk, logits[: len(chunk_rows)])
        logits = logits[len(chunk_rows) :]
