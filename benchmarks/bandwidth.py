"""Measures the read bandwidth, which limits decoding: every token reads all weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.energy import Joules, Meter

SIZE = 1 << 30  # bytes, much larger than any CPU cache
ROUNDS = 10

# The fastest kernel depends on the CPU; the best are within a few percent of a compiled loop.
_KERNELS: tuple[Callable[[NDArray[np.uint64]], Any], ...] = (
    lambda part: part.sum(),
    np.bitwise_or.reduce,
    lambda part: part.view(np.float32).max(),
    lambda part: part.view(np.uint8).max(),
)


class Bandwidth(NamedTuple):
    """Bytes per second in each round, and the energy above idle of reading a byte."""

    rates: list[float]
    byte_energy: Joules


def read_bandwidth(
    threads: int, meter: Meter, idle: Joules, *, size: int = SIZE, rounds: int = ROUNDS
) -> Bandwidth:
    """The read bandwidth with `threads` threads, of the kernel with the best median.

    `idle` is the power of the idle machine in watts.
    """
    data = np.ones(size // 8, np.uint64)
    parts = np.array_split(data, threads)
    found = []
    with ThreadPoolExecutor(threads) as pool:
        for kernel in _KERNELS:
            before = meter.read()
            rates = [_bytes_per_second(pool, kernel, parts, data.nbytes) for _ in range(rounds)]
            after = meter.read()
            used = meter.between(before, after).above(idle, after.seconds - before.seconds)
            found.append(Bandwidth(rates, used.times(1 / (rounds * data.nbytes))))
    return max(found, key=lambda one: median(one.rates))


def _bytes_per_second(
    pool: ThreadPoolExecutor,
    kernel: Callable[[NDArray[np.uint64]], Any],
    parts: list[NDArray[np.uint64]],
    size: int,
) -> float:
    started = time.perf_counter()
    list(pool.map(kernel, parts))
    return size / (time.perf_counter() - started)
