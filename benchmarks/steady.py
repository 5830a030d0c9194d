"""Samples count while the machine reads as fast as at the start of a run.

A virtual machine may be moved, within seconds, between parts of its host that read at very
different speeds; engines that compute and engines that read are changed by that in different ways.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from issun.benchmarks.bandwidth import read_bandwidth

_SWING, _PROBE = 0.15, 1 << 28  # largest change that is steady, and bytes read to find it
_TRIES, _PATIENCE = 5, 30  # samples of one test, and seconds of waiting before each


def settled_bandwidth(threads: int) -> list[float]:
    """The read bandwidth once all rounds of it agree, else as it is after a few tries."""
    for _ in range(_PATIENCE):
        found = read_bandwidth(threads)
        if max(found) <= (1 + _SWING) * min(found):
            break
        time.sleep(1)
    return found


@dataclass(slots=True)
class Steady:
    """Repeats what ran at another speed; `missed` counts what never ran at the usual one."""

    threads: int
    usual: float | None  # bytes a second at the start; None: no matter how fast it reads
    missed: int = 0

    def __call__(self, sample: Callable[[], list[float]]) -> list[float]:
        """The first of what `sample` gives that was steady, else the last of a few."""
        if self.usual is None:
            return sample()
        for _ in range(_TRIES):
            before = self._wait(self.usual)
            found = sample()
            if before and self._holds(self.usual):
                return found
        self.missed += 1
        return found

    def _wait(self, usual: float) -> bool:
        """Wait for the usual speed; False when it does not come back in time."""
        for _ in range(_PATIENCE):
            if self._holds(usual):
                return True
            time.sleep(1)
        return False

    def _holds(self, usual: float) -> bool:
        now = median(read_bandwidth(self.threads, size=_PROBE, rounds=3))
        return abs(now / usual - 1) <= _SWING
