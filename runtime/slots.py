"""Slots of a KV cache: those that are answering stand first, what others leave is kept behind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from issun.runtime.errors import OutOfMemoryError
from issun.runtime.kv_cache import KVCache
from issun.runtime.prefix import common_prefix

_READ_TOGETHER = 2  # a lone row is rounded otherwise than several, so it is never read alone


class Slots:
    """Sequences in one KV cache: the first `active` ones, then those that are being `read`.

    The active ones are one batch in the graph, and so are those that are being read. The slots
    behind hold what was answered before, for prompts that begin alike; the least recently used goes
    first.
    """

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.count, self.active, self.reading = len(cache.ids), 0, 0
        self._used = [0] * self.count  # when each slot was last of use
        self._time = 0

    @property
    def full(self) -> bool:
        """True when no sequence can join."""
        return self.active + self.reading == self.count

    def known(self, prompt: Sequence[int]) -> int:
        """How many ids of `prompt` need not be read, since a slot holds them."""
        return self._longest(prompt)[1]

    def _longest(self, prompt: Sequence[int]) -> tuple[int, int]:
        """The slot that begins most like `prompt`, and for how many ids that is of use."""
        shared = [common_prefix(held, prompt) for held in self.cache.ids]
        source = max(range(self.count), key=shared.__getitem__)
        return source, max(0, min(shared[source], len(prompt) - _READ_TOGETHER))

    def join(self, prompt: list[int], *, reuse: bool = True) -> int:
        """Make the slot behind those in use ready to read `prompt`.

        With `reuse` the longest beginning that any slot holds is taken over. Gives how many ids
        of the prompt need not be read. Raises OutOfMemoryError, and then nobody has joined.
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
            if source > place and whole:  # the new one will say all that it says, and more
                self._used[source] = 0
        self.reading += 1
        self._touch(place)
        return known

    def start(self) -> None:
        """What was being read is active from now on."""
        self.active += self.reading
        self.reading = 0

    def drop(self) -> None:
        """What was being read goes; as far as it was read it stays of use."""
        self.reading = 0

    def leave(self, place: int) -> None:
        """An active one goes, the last active one moves to its place; what it holds is kept.

        Of those that are being read the last moves to the front, so no more than one may be.
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
        """Copy what `place` holds over the least recently used of the others behind the active.

        Where no memory is left for that it is forgotten.
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
