"""What engines take beside each other, although not all of them met the machine at the same time.

Engines that take turns share a window of time; who did not fit into memory has another one, in
which the machine may have been slower for all. How much is known from engines that were in several
windows. Source: Yates, "Incomplete randomized blocks" (1936): least squares, here of logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple, TypeVar

_SWEEPS, _CLOSE = 10_000, 1e-9

_Key = TypeVar("_Key")


class Timed(NamedTuple):
    """Samples of a test in seconds, and for each the window that it was taken in."""

    seconds: Sequence[float]
    windows: Sequence[int]


def adjusted(engines: Mapping[str, Timed]) -> dict[str, float]:
    """Each engine's seconds: the geometric mean of its windows' medians, as if all had all windows.

    A window counts once however many samples it has, since a machine that is slow for one token is
    still slow for the next: they are no looks at it of their own. Windows that have no engine in
    common, not by way of others either, are left as they are.
    """
    logs = {
        (name, window): math.log(median(seconds))
        for name, timed in engines.items()
        for window, seconds in _grouped(zip(timed.windows, timed.seconds, strict=True)).items()
    }
    return {name: math.exp(log) for name, log in _of_engines(logs).items()}


def _of_engines(logs: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """The part of each log that is its engine's, by turns with the part that is its window's."""
    slow = dict.fromkeys((window for _, window in logs), 0.0)
    for _ in range(_SWEEPS):
        own = _means((name, log - slow[window]) for (name, window), log in logs.items())
        found = _means((window, log - own[name]) for (name, window), log in logs.items())
        moved = max((abs(found[window] - slow[window]) for window in slow), default=0.0)
        slow = found
        if moved < _CLOSE:
            break
    return own


def _means(pairs: Iterable[tuple[_Key, float]]) -> dict[_Key, float]:
    return {key: fmean(values) for key, values in _grouped(pairs).items()}


def _grouped(pairs: Iterable[tuple[_Key, float]]) -> dict[_Key, list[float]]:
    found: dict[_Key, list[float]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
