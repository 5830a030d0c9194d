"""The server's KV cache: slots that are answering stand first, what others leave is kept behind."""

from __future__ import annotations

from collections.abc import Sequence

from issun.runtime.decoder import IssunDecoder
from issun.runtime.prefix import common_prefix

_READ_TOGETHER = 2  # a lone row is rounded otherwise than several, so it is never read alone


class Slots:
    """Sequences in one KV cache: the first `active` ones, then one that is being read.

    The active ones are one batch in the graph. The slots behind hold what was answered before, for
    prompts that begin alike; the least recently used goes first.
    """

    def __init__(self, decoder: IssunDecoder, count: int) -> None:
        self.count, self.active, self.reading = count, 0, False
        self.cache = decoder.new_cache(count)
        self._used = [0] * count  # when each slot was last of use
        self._time = 0

    @property
    def full(self) -> bool:
        """True when no sequence can join."""
        return self.active + self.reading == self.count

    def join(self, prompt: Sequence[int], *, reuse: bool = True) -> int:
        """Make the slot behind the active ones ready to read `prompt`.

        With `reuse` the longest beginning that any slot holds is taken over. Gives how many ids
        of the prompt need not be read.
        """
        place = self.active
        shared = [common_prefix(held, prompt) if reuse else 0 for held in self.cache.ids]
        source = max(range(self.count), key=shared.__getitem__)
        known = max(0, min(shared[source], len(prompt) - _READ_TOGETHER))
        if not known:
            self._keep(place)
            self.cache.rewind(0, place)
        elif source == place:
            self.cache.rewind(known, place)
        else:
            whole = shared[source] == len(self.cache.ids[source])
            self._keep(place, source)
            self.cache.copy(self.cache, source, place, known)
            if source > place and whole:  # the new one will say all that it says, and more
                self._used[source] = 0
        self.reading = True
        self._touch(place)
        return known

    def start(self) -> None:
        """The one that was being read is active from now on."""
        self.reading = False
        self.active += 1

    def drop(self) -> None:
        """The one that was being read goes; what was read of it stays of use."""
        self.reading = False

    def leave(self, place: int) -> None:
        """An active one goes, the last active one moves to its place; what it holds is kept."""
        last = self.active - 1
        self._touch(place)
        if place != last or self.reading:
            self._keep(place, last)
        if place != last:
            self._move(last, place)
        self.active = last
        if self.reading:
            self._move(last + 1, last)

    def _keep(self, place: int, but: int = -1) -> None:
        """Copy what `place` holds over the least recently used of the others behind the active."""
        behind = range(self.active + self.reading, self.count)
        oldest = min(
            (slot for slot in behind if slot not in (place, but)),
            key=self._used.__getitem__,
            default=place,
        )
        if self.cache.ids[place] and self._used[oldest] < self._used[place]:
            self._copy(place, oldest)

    def _copy(self, source: int, place: int) -> None:
        self.cache.copy(self.cache, source, place)
        self._used[place] = self._used[source]

    def _move(self, source: int, place: int) -> None:
        self._copy(source, place)
        self.cache.rewind(0, source)
        self._used[source] = 0

    def _touch(self, place: int) -> None:
        self._time += 1
        self._used[place] = self._time
