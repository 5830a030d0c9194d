"""Prompts on their way into a KV cache: several that are short are read in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from issun.runtime.decoder import IssunDecoder, Logits, cut
from issun.runtime.filters import Vector
from issun.runtime.prefix import common_prefix
from issun.runtime.slots import Slots

_WORTH_WAITING = 16  # tokens that another prompt is just reading are read once for both


class Reading:
    """A prompt that is being read: what is left of it, and the logits behind the whole."""

    logits: Vector

    def __init__(self, prompt: list[int], known: int) -> None:
        self.prompt, self.rest = prompt, prompt[known:]

    def rows(self, size: int) -> range:
        """Which rows of the next `size` tokens have logits of use."""
        return range(size - (size == len(self.rest)), size)

    def add(self, chunk: Sequence[int], logits: Logits) -> None:
        """Note that `chunk` was read, with the logits of its rows."""
        self.rest = self.rest[len(chunk) :]
        if not self.rest:
            self.logits = logits[-1]


def fits(prompt: Sequence[int], known: int, readings: Sequence[Reading], most: int) -> bool:
    """Whether a prompt can be read beside `readings`, each of them whole, in `most` tokens."""
    rests = [len(prompt) - known, *(len(reading.rest) for reading in readings)]
    # A lone row is rounded otherwise than several, so it is read by itself.
    return not readings or (len(rests) * max(rests) <= most and min(rests) > 1)


def should_wait(prompt: Sequence[int], known: int, readings: Sequence[Reading]) -> bool:
    """Whether much of a prompt is just being read for another one, and can be copied after."""
    shared = max((common_prefix(reading.prompt, prompt) for reading in readings), default=0)
    return shared > known + _WORTH_WAITING


def read_piece(decoder: IssunDecoder, slots: Slots, readings: Sequence[Reading], most: int) -> None:
    """Read up to `most` tokens of each of `readings`, which lie in the slots that are read."""
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
