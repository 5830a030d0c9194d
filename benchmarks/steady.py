"""Accepts samples only while the read bandwidth has its usual value.

A virtual machine may move, within seconds, between parts of its host with very different read
bandwidths, which affects compute-bound and memory-bound engines differently.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from issun.benchmarks.bandwidth import read_bandwidth

_MAX_CHANGE, _PROBE_BYTES = 0.15, 1 << 28  # relative change that counts as steady; probe size
_NUM_PROBES = 100  # a second apart, to find the usual bandwidth
_TRIES, _MAX_WAIT = 5, 30  # samples of one test, and seconds of waiting before each


def steady_bandwidth(threads: int) -> list[float]:
    """The read bandwidth measured at its most frequent value, else the last of a few tries."""
    probes = []
    for _ in range(_NUM_PROBES):
        probes.append(_probe(threads))
        time.sleep(1)
    usual = max(probes, key=lambda speed: sum(_is_close(other, speed) for other in probes))
    for _ in range(_MAX_WAIT):
        found = read_bandwidth(threads)
        if all(_is_close(speed, usual) for speed in found):
            break
        time.sleep(1)
    return found


def _probe(threads: int) -> float:
    return median(read_bandwidth(threads, size=_PROBE_BYTES, rounds=3))


def _is_close(speed: float, usual: float) -> bool:
    return abs(speed / usual - 1) <= _MAX_CHANGE


@dataclass(slots=True)
class SteadySampler:
    """Repeats samples until the bandwidth is usual; `missed` counts those where it never was."""

    threads: int
    usual: float | None  # bytes per second; None accepts every sample
    missed: int = 0

    def __call__(self, sample: Callable[[], list[float]]) -> list[float]:
        """The first result of `sample` at the usual bandwidth, else the last of a few."""
        if self.usual is None:
            return sample()
        for _ in range(_TRIES):
            before = self._wait(self.usual)
            found = sample()
            if before and self._is_usual(self.usual):
                return found
        self.missed += 1
        return found

    def _wait(self, usual: float) -> bool:
        """Wait for the usual bandwidth; False if it does not return in time."""
        for _ in range(_MAX_WAIT):
            if self._is_usual(usual):
                return True
            time.sleep(1)
        return False

    def _is_usual(self, usual: float) -> bool:
        return _is_close(_probe(self.threads), usual)
