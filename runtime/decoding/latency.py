"""Percentiles of latencies: the time to the first token (TTFT), and between tokens (ITL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The 50th, 90th and 99th percentile of latencies, in seconds."""

    p50: float
    p90: float
    p99: float


def percentiles(seconds: Sequence[float]) -> Percentiles | None:
    """The percentiles, interpolated between neighbours; None without any latency."""
    if not len(seconds):
        return None
    return Percentiles(*(float(value) for value in np.percentile(seconds, (50, 90, 99))))
