"""The default number of threads: one per fast core."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from issun.runtime.weights.cgroups import control_groups

_ROOT = Path("/")
_DEVICES = Path("/sys/devices")
_CORES, _CLASS = 0, 9  # RelationProcessorCore; the offset of EfficiencyClass in a record


def physical_cores(devices: Path = _DEVICES, root: Path = _ROOT) -> int:
    """Return the physical cores that this process may use, without efficiency cores.

    Hyper-threads do not count, and a thread on a slow core would make the others wait. Linux lists
    the performance cores of Intel's hybrids and reports the capacity of Arm's cores, macOS reports
    the cores of its fastest level, and Windows reports each core's efficiency class; elsewhere all
    physical cores count. A CPU quota, as set for containers, limits the number, rounded up: more
    threads would be throttled for the rest of each period.
    """
    if sys.platform == "darwin" and (cores := _apple_performance_cores()):
        return cores
    if sys.platform == "win32" and (cores := _fastest_class(_windows_cores())):
        return cores
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = _fast_cores(devices, allowed) or min(_all_physical(), len(allowed))
        return min([cores, *_quota_cores(root)])
    return _all_physical()


def _quota_cores(root: Path) -> Iterator[int]:
    """Yield the CPU quota of each control group of this process, rounded up to whole CPUs."""
    for group in control_groups("cpu", root):
        if group.version == 1:
            quota, period = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
        else:
            quota, _, period = group.read("cpu.max").partition(" ")
        # "max" and -1 mean no quota.
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            yield -(-int(quota) // int(period))


def _all_physical() -> int:
    import psutil  # noqa: PLC0415

    cores: int = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return cores


def _fast_cores(devices: Path, allowed: set[int]) -> int:
    """Return the cores at least 3/4 as fast as the fastest one; 0 if Linux does not report them."""
    fast = _cpu_list(_read(devices / "cpu_core" / "cpus") or "")
    speeds: dict[str, int] = {}  # the key is the core's list of logical CPUs
    for cpu in (allowed & fast) or allowed:
        folder = devices / "system" / "cpu" / f"cpu{cpu}"
        core = _read(folder / "topology" / "thread_siblings_list")
        if core is None:
            return 0
        speeds[core] = int(_read(folder / "cpu_capacity") or 1)
    fastest = max(speeds.values(), default=0)
    return sum(4 * speed >= 3 * fastest for speed in speeds.values())


def _cpu_list(text: str) -> set[int]:
    """Parse a list of CPU numbers such as "0-3,8"."""
    ranges = [part.partition("-") for part in text.split(",") if part]
    return {cpu for a, _, b in ranges for cpu in range(int(a), int(b or a) + 1)}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _apple_performance_cores() -> int:
    """Return the cores of the fastest level; 0 on a Mac with cores of one kind."""
    count = ctypes.c_int(0)
    size = ctypes.c_size_t(ctypes.sizeof(count))
    status = ctypes.CDLL(None).sysctlbyname(
        b"hw.perflevel0.physicalcpu", ctypes.byref(count), ctypes.byref(size), None, 0
    )
    return count.value if status == 0 else 0


def _fastest_class(records: bytes) -> int:
    """Count the highest class among Windows' PROCESSOR_RELATIONSHIP records; 0 if there are none.

    Each record begins with its relationship and size in 32 bits; byte 9 is the class, and a higher
    one is faster (SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX in Microsoft's documentation).
    """
    classes = []
    while len(records) > _CLASS:
        classes.append(records[_CLASS])
        size = int.from_bytes(records[4:8], "little")
        records = records[max(size, _CLASS + 1) :]
    return classes.count(max(classes, default=0))


def _windows_cores() -> bytes:
    """Return one record for each physical core; empty if Windows reports none."""
    query = ctypes.WinDLL("kernel32").GetLogicalProcessorInformationEx  # type: ignore[attr-defined]
    size = ctypes.c_uint32(0)
    query(_CORES, None, ctypes.byref(size))
    records = ctypes.create_string_buffer(size.value)
    return records.raw if query(_CORES, records, ctypes.byref(size)) else b""
