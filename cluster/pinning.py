"""Binds a process to CPU cores of its own (Linux).

A worker of one thread that never moves answers more rows than threads that wait for each other;
`python -m issun.benchmarks.batch` measures it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from issun.runtime.weights.cores import physical_cores

_CPUS = Path("/sys/devices/system/cpu")
_POLL = 0.05  # seconds
_claims: list[socket.socket] = []  # of this process


def pin(cores: int) -> list[int]:
    """Bind this process to `cores` cores that no other worker has; return their CPUs.

    Nothing is bound if there are too few, on systems other than Linux, and where a quota limits the
    CPU time: containers with quotas share the cores, but do not see each other's claims.
    """
    if sys.platform != "linux" or physical_cores() < len(_cores()):
        return []
    claimed: dict[socket.socket, set[int]] = {}
    for cpus in _cores():
        if len(claimed) < cores and (claim := _claim(f"cpu-{min(cpus)}")):
            claimed[claim] = cpus
    if len(claimed) < cores:
        for claim in claimed:
            claim.close()
        return []
    _claims.extend(claimed)
    bound = set().union(*claimed.values())
    for task in Path("/proc/self/task").iterdir():  # 0 would mean the calling thread alone
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), bound)
    return sorted(bound)


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Wait until no other process of this machine is in a block of this name (Linux)."""
    if sys.platform != "linux":
        yield
        return
    while not (claim := _claim(name)):
        time.sleep(_POLL)
    with claim:
        yield


def _cores() -> list[set[int]]:
    """The CPUs of each core that this process may use."""
    allowed = os.sched_getaffinity(0)
    cores: dict[str, set[int]] = {}
    for cpu in sorted(allowed):
        try:
            core = (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii")
        except OSError:
            core = str(cpu)
        cores.setdefault(core, set()).add(cpu)
    return list(cores.values())


def _claim(name: str) -> socket.socket | None:
    """Return what holds a name that only one process of this machine can have; None if taken.

    It is an abstract socket, which needs no file and ends with the process.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0issun-{name}")
    except OSError:
        claim.close()
        return None
    return claim
