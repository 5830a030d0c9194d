"""The time that a run takes, and the time that remains."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Estimates the time of a run from the work that is done and the work that is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._work = self._done = 0.0
        self._prepared = self._spent = 0.0  # seconds before the work, and of the work that is done

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def plan(self, work: float) -> None:
        """Take in the work of all steps, which start now, in any unit."""
        self._work, self._prepared = work, self.elapsed

    def add(self, work: float) -> None:
        """Count a step that has ended."""
        self._done += work
        self._spent = self.elapsed - self._prepared

    def remaining(self) -> float | None:
        """Estimated seconds until the end; None before the first step has ended."""
        if not self._done:
            return None
        return max(0.0, self._prepared + self._spent * self._work / self._done - self.elapsed)

    def __str__(self) -> str:
        """Total and remaining time, such as `2:40 in all, 1:30 left`."""
        left = self.remaining()
        if left is None:
            return "estimating the time"
        return f"about {clock_time(self.elapsed + left)} in all, {clock_time(left)} left"


def clock_time(seconds: float) -> str:
    """Minutes and seconds, such as `2:40`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
