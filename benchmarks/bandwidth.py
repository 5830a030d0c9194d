"""Measures the read bandwidth, which limits decoding: every token reads all weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 1 << 30  # bytes, much larger than any CPU cache
ROUNDS = 10

# The fastest kernel depends on the CPU; the best are within a few percent of a compiled loop.
_KERNELS: tuple[Callable[[NDArray[np.uint64]], Any], ...] = (
    lambda part: part.sum(),
    np.bitwise_or.reduce,
    lambda part: part.view(np.float32).max(),
    lambda part: part.view(np.uint8).max(),
)


def read_bandwidth(threads: int, *, size: int = SIZE, rounds: int = ROUNDS) -> list[float]:
    """Bytes per second in each round with `threads` threads, of the kernel with the best median."""
    data = np.ones(size // 8, np.uint64)
    parts = np.array_split(data, threads)
    with ThreadPoolExecutor(threads) as pool:
        found = [
            [_bytes_per_second(pool, kernel, parts, data.nbytes) for _ in range(rounds)]
            for kernel in _KERNELS
        ]
    return max(found, key=median)


def _bytes_per_second(
    pool: ThreadPoolExecutor,
    kernel: Callable[[NDArray[np.uint64]], Any],
    parts: list[NDArray[np.uint64]],
    size: int,
) -> float:
    started = time.perf_counter()
    list(pool.map(kernel, parts))
    return size / (time.perf_counter() - started)
