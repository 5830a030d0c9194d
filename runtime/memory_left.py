"""How much more memory this process can take before the kernel kills something.

The kernel grants memory that it does not have (overcommit), so an allocation that succeeds proves
nothing: a control group's limit, or the machine's own, ends the process at the first touch.
See the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/")


class _Version(NamedTuple):
    """What a version of control groups calls its files, and where they may be mounted."""

    mounts: tuple[str, ...]
    limit: str
    usage: str
    reclaimable: re.Pattern[str]  # lines of memory.stat: file pages, which can be read again


_V1 = _Version(
    ("sys/fs/cgroup/memory",),
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    re.compile(r"^total_(?:in)?active_file (\d+)$", re.MULTILINE),
)
_V2 = _Version(
    ("sys/fs/cgroup", "sys/fs/cgroup/unified"),
    "memory.max",
    "memory.current",
    re.compile(r"^(?:in)?active_file (\d+)$", re.MULTILINE),
)


def take(size: int) -> None:
    """Raise MemoryError unless `size` more bytes can be touched, as far as the system tells."""
    left = memory_left()
    if left is not None and left < size:
        raise MemoryError(size)


def memory_left(root: Path = _ROOT) -> int | None:
    """Bytes that are free or can be reclaimed, swap included; None where only Linux would tell."""
    if sys.platform != "linux":
        return None
    told = dict(re.findall(r"^(\w+): +(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE))
    if "MemAvailable" not in told:
        return None
    swap = int(told.get("SwapFree", 0)) * 1024
    available = int(told["MemAvailable"]) * 1024
    return swap + min([available, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """What the limit of each of this process's groups, and of those around them, leaves."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            version = _V1 if controllers else _V2
            for mount in version.mounts:
                group = root / mount / path.lstrip("/")
                for place in (group, *group.parents):
                    yield from _left_in(place, version)
                    if place == root / mount:
                        break


def _left_in(group: Path, version: _Version) -> Iterator[int]:
    limit, usage = (_read(group / name).strip() for name in (version.limit, version.usage))
    if limit.isdigit() and usage.isdigit():
        reclaimable = version.reclaimable.findall(_read(group / "memory.stat"))
        yield int(limit) - int(usage) + sum(map(int, reclaimable))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError):
        return ""
