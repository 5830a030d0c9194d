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
        self.count, self.active, self.prefilling = len(cache.ids), 0, 0
        self._used = [0] * self.count  # when each slot was last used
        self._time = 0

    @property
    def full(self) -> bool:
        """Whether no sequence can join."""
        return self.active + self.prefilling == self.count

    def reusable(self, prompt: Sequence[int]) -> int:
        """Return how many ids of `prompt` a slot already holds."""
        return self._longest_prefix(prompt)[1]

    def _longest_prefix(self, prompt: Sequence[int]) -> tuple[int, int]:
        """Return the slot with the longest common prefix and how many of its ids can be reused."""
        shared = [common_prefix(held, prompt) for held in self.cache.ids]
        source = max(range(self.count), key=shared.__getitem__)
        return source, max(0, min(shared[source], len(prompt) - _READ_TOGETHER))

    def join(self, prompt: list[int], *, reuse: bool = True) -> int:
        """Prepare the next slot for the prefill of `prompt`.

        With `reuse`, the longest prefix that any slot holds is reused. Returns how many ids of the
        prompt need no prefill. Raises OutOfMemoryError and leaves the slots unchanged.
        """
        slot = self.active + self.prefilling
        source, reusable = self._longest_prefix(prompt) if reuse else (slot, 0)
        if not reusable:
            self._preserve(slot)
            self.cache.rewind(0, slot)
        elif source == slot:
            self.cache.rewind(reusable, slot)
        else:
            held = self.cache.ids[source]
            whole = held == prompt[: len(held)]
            self._preserve(slot, source)
            self.cache.copy(self.cache, source, slot, reusable)
            if source > slot and whole:  # the new sequence will contain all of the old one
                self._used[source] = 0
        self.prefilling += 1
        self._touch(slot)
        return reusable

    def activate(self) -> None:
        """Make the sequences in prefill active."""
        self.active += self.prefilling
        self.prefilling = 0

    def drop_prefills(self) -> None:
        """Abandon the sequences in prefill; the part that was computed can still be reused."""
        self.prefilling = 0

    def remove(self, slot: int) -> None:
        """Remove an active sequence and move the last active one to its slot.

        The removed sequence is kept for reuse. The last sequence in prefill moves to the front of
        those, so there may be at most one.
        """
        last = self.active - 1
        self._touch(slot)
        if slot != last or self.prefilling:
            self._preserve(slot, last)
        if slot != last:
            self._move(last, slot)
        self.active = last
        if self.prefilling:
            self._move(last + self.prefilling, last)

    def _preserve(self, slot: int, excluded: int = -1) -> None:
        """Copy what `slot` holds over the least recently used inactive slot.

        It is discarded if there is not enough memory.
        """
        inactive = range(self.active + self.prefilling, self.count)
        oldest = min(
            (other for other in inactive if other not in (slot, excluded)),
            key=self._used.__getitem__,
            default=slot,
        )
        if self.cache.ids[slot] and self._used[oldest] < self._used[slot]:
            with suppress(OutOfMemoryError):
                self.cache.copy(self.cache, slot, oldest)
                self._used[oldest] = self._used[slot]

    def _move(self, source: int, slot: int) -> None:
        self.cache.move(source, slot)
        self._used[slot], self._used[source] = self._used[source], 0

    def _touch(self, slot: int) -> None:
        self._time += 1
        self._used[slot] = self._time
