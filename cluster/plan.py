"""How many workers of how many threads fit into a machine."""

from __future__ import annotations

import math
from numbers import Integral
from typing import NamedTuple

from issun.runtime.decoding.decoder import kv_bytes
from issun.runtime.errors import check_range
from issun.runtime.manifest import KVCacheType, Manifest
from issun.runtime.weights.memory_left import memory_left
from issun.runtime.weights.weight_cache import is_packed

MAX_SLOTS = 16  # answers of a worker that are generated together
_MIN_SLOTS = 8  # fewer are slower than fewer workers
_WORKER_BYTES = 200 << 20  # of a worker without weights and KV cache; measured: 100 to 180 MB
_SHARE = 0.75  # of the free memory


class Layout(NamedTuple):
    """Workers, and the threads and slots of each."""

    workers: int
    threads: int
    slots: int


def free_memory() -> int:
    """Return the bytes that a limit on this process leaves, or those that the machine has free."""
    import psutil  # noqa: PLC0415

    return memory_left() or int(psutil.virtual_memory().available)


def check_layout(workers: int | None, threads: int | None, slots: int | None) -> None:
    """Raise ParameterError for values that are no whole numbers, or below 1."""
    for name, value in (("workers", workers), ("threads", threads), ("slots", slots)):
        if value is not None:
            check_range(name, value, Integral, 1, math.inf)


def plan(
    manifest: Manifest,
    kv_cache: KVCacheType,
    *,
    cores: int,
    free: int,
    workers: int | None = None,
    threads: int | None = None,
    slots: int | None = None,
) -> Layout:
    """Return a layout for `cores` cores and `free` bytes, with what is given.

    There are as many workers as the cores allow. If their KV caches, and their weights where
    they are not mapped from the cache of packed weights, do not fit, there are fewer workers with
    more threads. Raises ParameterError for values below 1.
    """
    check_layout(workers, threads, slots)
    most = workers or max(1, cores // (threads or 1))
    mapped = manifest.size if is_packed(manifest) else 0  # once for all workers
    own = _WORKER_BYTES + manifest.size - mapped
    slot = kv_bytes(manifest.architecture, kv_cache)

    def room(number: int) -> int:
        return int(((free * _SHARE - mapped) / number - own) // slot)

    fitting = (number for number in range(most, 1, -1) if room(number) >= (slots or _MIN_SLOTS))
    number = workers or next(fitting, 1)
    return Layout(
        number,
        threads or max(1, cores // number),
        slots or max(1, min(room(number), MAX_SLOTS)),
    )
