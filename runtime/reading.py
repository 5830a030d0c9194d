"""Prefill: prompts on their way into a KV cache; short ones share a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from issun.runtime.decoder import IssunDecoder, Logits, cut
from issun.runtime.filters import Vector
from issun.runtime.prefix import common_prefix
from issun.runtime.slots import Slots

_WORTH_WAITING = 16  # tokens of a prefill in progress that are worth waiting for and copying


class Reading:
    """A prompt in prefill: its remaining ids and, at the end, the logits of the last one."""

    logits: Vector

    def __init__(self, prompt: list[int], known: int) -> None:
        self.prompt, self.rest = prompt, prompt[known:]

    def rows(self, size: int) -> range:
        """Return which rows of the next `size` tokens need logits."""
        return range(size - (size == len(self.rest)), size)

    def add(self, chunk: Sequence[int], logits: Logits) -> None:
        """Record that `chunk` was computed, with the logits of its rows."""
        self.rest = self.rest[len(chunk) :]
        if not self.rest:
            self.logits = logits[-1]


def fits(prompt: Sequence[int], known: int, readings: Sequence[Reading], most: int) -> bool:
    """Return whether a prompt and `readings` can be prefilled in one chunk of `most` tokens."""
    rests = [len(prompt) - known, *(len(reading.rest) for reading in readings)]
    # A single row rounds differently from several, so it is run alone.
    return not readings or (len(rests) * max(rests) <= most and min(rests) > 1)


def should_wait(prompt: Sequence[int], known: int, readings: Sequence[Reading]) -> bool:
    """Return whether a prefill in progress will provide a long prefix of `prompt` to copy."""
    shared = max((common_prefix(reading.prompt, prompt) for reading in readings), default=0)
    return shared > known + _WORTH_WAITING


def read_piece(decoder: IssunDecoder, slots: Slots, readings: Sequence[Reading], most: int) -> None:
    """Run up to `most` tokens of each of `readings`, which occupy the slots in prefill."""
    chunks = [next(cut(reading.rest, most)) for reading in readings]
    width = max(map(len, chunks))
    rows = [
        [width * place + row for row in reading.rows(len(chunk))]
        for place, (reading, chunk) in enumerate(zip(readings, chunks, strict=True))
    ]
    logits = decoder.forward(slots.cache, chunks, list(chain(*rows)), first=slots.active)
    for reading, chunk, own in zip(readings, chunks, rows, strict=True):
        reading.add(chunk, logits[: len(own)])
        logits = logits[len(own) :]
