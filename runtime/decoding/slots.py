"""Slots of a KV cache: active sequences come first, finished ones are kept for reuse."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.errors import OutOfMemoryError
from issun.runtime.text.prefix import common_prefix

_READ_TOGETHER = 2  # rows: a single row rounds differently, so one is never prefilled alone


@dataclass(frozen=True, slots=True)
class _Use:
    """What a slot was last used for, and when."""

    texts: tuple[object, ...] = ()
    time: int = 0


class Slots:
    """Sequences in one KV cache: the first `active` ones decode, the next ones are in prefill.

    The active sequences form one batch of the graph, and so do those in prefill. The slots after
    them hold finished sequences, whose prefix a new prompt may share. A new prompt overwrites a
    sequence that it continues, otherwise the least recently used one.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.count, self.active, self.prefilling = len(cache.ids), 0, 0
        self._uses = [_Use()] * self.count
        self._time = 0

    @property
    def full(self) -> bool:
        """Whether no sequence can join."""
        return self.active + self.prefilling == self.count

    def reusable(self, prompt: Sequence[int], adapter: str | None = None) -> int:
        """Return how many ids of `prompt` a slot already holds, computed by `adapter`."""
        return self._longest_prefix(prompt, adapter)[1]

    def _longest_prefix(self, prompt: Sequence[int], adapter: str | None) -> tuple[int, int]:
        """Return the slot with the longest common prefix and how many of its ids can be reused."""
        shared = [
            common_prefix(held, prompt) if by == adapter else 0
            for held, by in zip(self.cache.ids, self.cache.adapters, strict=True)
        ]
        source = max(range(self.count), key=shared.__getitem__)
        return source, max(0, min(shared[source], len(prompt) - _READ_TOGETHER))

    def join(
        self,
        prompt: list[int],
        texts: Sequence[object] = (),
        *,
        adapter: str | None = None,
        reuse: bool = True,
    ) -> int:
        """Prepare the next slot for the prefill of `prompt` with `adapter`.

        `texts` are those of a conversation so far (default: the ids of the prompt). A sequence
        whose texts are the first of these is superseded. With `reuse`, the longest prefix that any
        slot holds is reused. Returns how many ids of the prompt need no prefill. Raises
        OutOfMemoryError, in which case the slots can still be used.
        """
        texts = (adapter, *(texts or prompt))
        slot = self.active + self.prefilling
        source, reusable = self._longest_prefix(prompt, adapter) if reuse else (slot, 0)
        victim = self._victim(slot, texts, source)
        if source == victim:
            self._exchange(source, slot)
            self.cache.rewind(reusable, slot)
        else:
            self._copy(slot, victim)
            if source == slot:
                self.cache.rewind(reusable, slot)
            else:
                self.cache.copy(self.cache, source, slot, reusable)
        self.cache.choose_adapter(adapter, slot)
        self.prefilling += 1
        self._use(slot, texts)
        return reusable

    def _victim(self, first: int, texts: tuple[object, ...], source: int) -> int:
        """Return the slot from `first` on to overwrite: a superseded or the least recently used."""

        def rank(slot: int) -> tuple[int, int]:
            use = self._uses[slot]
            superseded = use.texts == texts[: len(use.texts)]  # or empty
            copies = 0 if slot == source else 1 if slot == first else 2
            return (0, copies) if superseded else (1, use.time)

        return min(range(first, self.count), key=rank)

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
        self._use(slot, self._uses[slot].texts)
        self._exchange(last, slot)
        if self.prefilling:
            self._exchange(last + self.prefilling, last)
        self.active = last

    def _copy(self, source: int, slot: int) -> None:
        """Copy a sequence to another slot; it is discarded if there is not enough memory."""
        if source != slot and self.cache.ids[source]:
            with suppress(OutOfMemoryError):
                self.cache.copy(self.cache, source, slot)
                self._uses[slot] = self._uses[source]

    def _exchange(self, source: int, slot: int) -> None:
        """Exchange two slots; what `slot` holds is discarded if there is not enough memory."""
        if source == slot:
            return
        uses = self._uses
        try:
            self.cache.swap(source, slot)
            uses[source], uses[slot] = uses[slot], uses[source]
        except OutOfMemoryError:
            self.cache.move(source, slot)
            uses[source], uses[slot] = _Use(), uses[source]

    def _use(self, slot: int, texts: tuple[object, ...]) -> None:
        self._time += 1
        self._uses[slot] = _Use(texts, self._time)
