"""How much more memory this process can use before the kernel kills something.

The kernel overcommits memory, so an allocation that succeeds proves nothing: if the limit of a
control group or of the machine is exceeded, the process is killed when it first touches a page.
See the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from issun.runtime.errors import OutOfMemoryError
from issun.runtime.weights.cgroups import Group, control_groups, read_system
from issun.runtime.weights.session import is_out_of_memory

_ROOT = Path("/")


class _Version(NamedTuple):
    """The file names of one version of control groups."""

    limit: str
    usage: str
    reclaimable: re.Pattern[str]  # lines of memory.stat: memory that can be reclaimed
    swap_limit: str
    swap_usage: str


_V1 = _Version(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    re.compile(r"^total_(?:in)?active_file (\d+)$", re.MULTILINE),
    "memory.memsw.limit_in_bytes",  # of memory plus swap
    "memory.memsw.usage_in_bytes",
)
_V2 = _Version(
    "memory.max",
    "memory.current",
    re.compile(r"^(?:(?:in)?active_file|slab_reclaimable) (\d+)$", re.MULTILINE),
    "memory.swap.max",
    "memory.swap.current",
)


@contextmanager
def memory_for(tokens: int) -> Iterator[None]:
    """Raise OutOfMemoryError if an allocation fails; other errors pass."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors share no base class
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            "There is not enough memory for {tokens:,} more tokens: close other programs, or "
            "use a smaller precision or a shorter context.",
            tokens=tokens,
        ) from error


def check_memory(size: int) -> None:
    """Raise MemoryError unless `size` more bytes are available, as far as the system reports it."""
    left = memory_left()
    if left is not None and left < size:
        raise MemoryError(size)


def memory_left(root: Path = _ROOT) -> int | None:
    """Return the free and reclaimable bytes including swap; None on systems other than Linux."""
    if sys.platform != "linux":
        return None
    meminfo = dict(
        re.findall(r"^(\w+): +(\d+) kB$", read_system(root / "proc/meminfo"), re.MULTILINE)
    )
    if "MemAvailable" not in meminfo:
        return None
    available, swap = (int(meminfo.get(name, 0)) * 1024 for name in ("MemAvailable", "SwapFree"))
    return min([available + swap, *_left_in_all_groups(root, swap)])


def _left_in_all_groups(root: Path, swap: int) -> Iterator[int]:
    """Yield the bytes left by the limit of each of this process's groups and their parents."""
    for group in control_groups("memory", root):
        yield from _left_in_group(group, _V1 if group.version == 1 else _V2, swap)


def _left_in_group(group: Group, version: _Version, swap: int) -> Iterator[int]:
    free = _free(group, version.limit, version.usage)
    if free is None:
        return
    swap_free = _free(group, version.swap_limit, version.swap_usage)
    if swap_free is not None:
        combined = version is _V1  # its swap limit counts memory plus swap
        swap = max(0, min(swap, swap_free - free * combined))
    yield free + swap + sum(map(int, version.reclaimable.findall(group.read("memory.stat"))))


def _free(group: Group, limit: str, usage: str) -> int | None:
    """Return the bytes left by a limit; None if there is no limit."""
    maximum, used = group.read(limit), group.read(usage)
    return int(maximum) - int(used) if maximum.isdigit() and used.isdigit() else None
