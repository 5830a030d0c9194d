"""Slots of a KV cache: active sequences come first, finished ones are kept for reuse."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from issun.runtime.errors import OutOfMemoryError
from issun.runtime.kv_cache import KVCache
from issun.runtime.prefix import common_prefix

_READ_TOGETHER = 2  # rows: a single row rounds differently, so one is never prefilled alone


class Slots:
    """Sequences in one KV cache: the first `active` ones decode, the next ones are in prefill.

    The active sequences form one batch of the graph, and so do those in prefill. The slots after
    them hold finished sequences, whose prefix a new prompt may share; the least recently used
    slot is overwritten first.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.count, self.active, self.reading = len(cache.ids), 0, 0
        self._used = [0] * self.count  # when each slot was last used
        self._time = 0

    @property
    def full(self) -> bool:
        """Whether no sequence can join."""
        return self.active + self.reading == self.count

    def known(self, prompt: Sequence[int]) -> int:
        """Return how many ids of `prompt` a slot already holds."""
        return self._longest(prompt)[1]

    def _longest(self, prompt: Sequence[int]) -> tuple[int, int]:
        """Return the slot with the longest common prefix and how many of its ids can be reused."""
        shared = [common_prefix(held, prompt) for held in self.cache.ids]
        source = max(range(self.count), key=shared.__getitem__)
        return source, max(0, min(shared[source], len(prompt) - _READ_TOGETHER))

    def join(self, prompt: list[int], *, reuse: bool = True) -> int:
        """Prepare the next slot for the prefill of `prompt`.

        With `reuse`, the longest prefix that any slot holds is reused. Returns how many ids of the
        prompt need no prefill. Raises OutOfMemoryError and leaves the slots unchanged.
        """
        place = self.active + self.reading
        source, known = self._longest(prompt) if reuse else (place, 0)
        if not known:
            self._keep(place)
            self.cache.rewind(0, place)
        elif source == place:
            self.cache.rewind(known, place)
        else:
            held = self.cache.ids[source]
            whole = held == prompt[: len(held)]
            self._keep(place, source)
            self.cache.copy(self.cache, source, place, known)
            if source > place and whole:  # the new sequence will contain all of the old one
                self._used[source] = 0
        self.reading += 1
        self._touch(place)
        return known

    def start(self) -> None:
        """Make the sequences in prefill active."""
        self.active += self.reading
        self.reading = 0

    def drop(self) -> None:
        """Abandon the sequences in prefill; the part that was computed can still be reused."""
        self.reading = 0

    def leave(self, place: int) -> None:
        """Remove an active sequence and move the last active one to its slot.

        The removed sequence is kept for reuse. The last sequence in prefill moves to the front of
        those, so there may be at most one.
        """
        last = self.active - 1
        self._touch(place)
        if place != last or self.reading:
            self._keep(place, last)
        if place != last:
            self._move(last, place)
        self.active = last
        if self.reading:
            self._move(last + self.reading, last)

    def _keep(self, place: int, but: int = -1) -> None:
        """Copy what `place` holds over the least recently used inactive slot.

        It is discarded if there is not enough memory.
        """
        behind = range(self.active + self.reading, self.count)
        oldest = min(
            (slot for slot in behind if slot not in (place, but)),
            key=self._used.__getitem__,
            default=place,
        )
        if self.cache.ids[place] and self._used[oldest] < self._used[place]:
            with suppress(OutOfMemoryError):
                self.cache.copy(self.cache, place, oldest)
                self._used[oldest] = self._used[place]

    def _move(self, source: int, place: int) -> None:
        self.cache.move(source, place)
        self._used[place], self._used[source] = self._used[source], 0

    def _touch(self, place: int) -> None:
        self._time += 1
        self._used[place] = self._time
