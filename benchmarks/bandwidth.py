"""The machine's read bandwidth: the limit of decoding, which reads all weights for each token."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 1 << 30  # bytes: far more than any cache holds
ROUNDS = 10

# Which reads fastest differs by CPU; the best come within a few percent of a compiled loop.
_KERNELS: tuple[Callable[[NDArray[np.uint64]], Any], ...] = (
    lambda part: part.sum(),
    np.bitwise_or.reduce,
    lambda part: part.view(np.float32).max(),
    lambda part: part.view(np.uint8).max(),
)


def read_bandwidth(threads: int, *, size: int = SIZE, rounds: int = ROUNDS) -> list[float]:
    """Bytes a second in each round of the kernel whose median is best, with `threads` threads."""
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
