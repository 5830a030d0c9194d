"""Compares engines that were measured in different time windows.

Interleaved engines share a window of time. Engines that do not fit into memory together run in
different windows, in which the machine may be slower or faster for all. Engines that were in
several windows tell by how much. Source: Yates, "Incomplete randomized blocks" (1936): least
squares, here on logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple, TypeVar

_MAX_ITERATIONS, _TOLERANCE = 10_000, 1e-9

_Key = TypeVar("_Key")


class TimedSamples(NamedTuple):
    """Samples of a test in seconds, and the window of each sample."""

    seconds: Sequence[float]
    windows: Sequence[int]


def estimate_times(engines: Mapping[str, TimedSamples]) -> dict[str, float]:
    """Each engine's seconds, as if all engines had been in all windows.

    This is the geometric mean of the medians of its windows, corrected for the windows' speeds. A
    window counts once, however many samples it has, since samples within a window are correlated.
    Windows that no chain of common engines connects are not corrected.
    """
    logs = {
        (name, window): math.log(median(seconds))
        for name, timed in engines.items()
        for window, seconds in _grouped(zip(timed.windows, timed.seconds, strict=True)).items()
    }
    return {name: math.exp(log) for name, log in _engine_effects(logs).items()}


def _engine_effects(logs: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """The effect of each engine on its logarithms, fitted alternately with that of each window."""
    window_effects = dict.fromkeys((window for _, window in logs), 0.0)
    for _ in range(_MAX_ITERATIONS):
        effects = _means(
            (name, log - window_effects[window]) for (name, window), log in logs.items()
        )
        updated = _means((window, log - effects[name]) for (name, window), log in logs.items())
        change = max((abs(updated[w] - window_effects[w]) for w in updated), default=0.0)
        window_effects = updated
        if change < _TOLERANCE:
            break
    return effects


def _means(pairs: Iterable[tuple[_Key, float]]) -> dict[_Key, float]:
    return {key: fmean(values) for key, values in _grouped(pairs).items()}


def _grouped(pairs: Iterable[tuple[_Key, float]]) -> dict[_Key, list[float]]:
    found: dict[_Key, list[float]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found
