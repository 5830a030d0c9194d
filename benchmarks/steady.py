"""Samples count while the machine reads as fast as it usually does.

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
_LOOKS = 100  # a second apart, to see which speed is usual
_TRIES, _PATIENCE = 5, 30  # samples of one test, and seconds of waiting before each


def settled_bandwidth(threads: int) -> list[float]:
    """The read bandwidth while it is what it is most often, else as it is after a few tries."""
    seen = []
    for _ in range(_LOOKS):
        seen.append(_glance(threads))
        time.sleep(1)
    usual = max(seen, key=lambda speed: sum(_alike(other, speed) for other in seen))
    for _ in range(_PATIENCE):
        found = read_bandwidth(threads)
        if all(_alike(speed, usual) for speed in found):
            break
        time.sleep(1)
    return found


def _glance(threads: int) -> float:
    return median(read_bandwidth(threads, size=_PROBE, rounds=3))


def _alike(speed: float, usual: float) -> bool:
    return abs(speed / usual - 1) <= _SWING


@dataclass(slots=True)
class Steady:
    """Repeats what ran at another speed; `missed` counts what never ran at the usual one."""

    threads: int
    usual: float | None  # bytes a second; None: no matter how fast it reads
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
        return _alike(_glance(self.threads), usual)
