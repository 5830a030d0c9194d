"""Describes this machine and the state of the code, and prepares it for measurements."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from issun.benchmarks.measured import Machine
from issun.runtime.weights.cores import physical_cores

# The CPU flags that select matrix-product kernels.
_FLAGS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve"),
)


def this_machine() -> Machine:
    """CPU, flags, memory, operating system and Python of this machine."""
    import psutil  # noqa: PLC0415
    from cpuinfo import get_cpu_info  # noqa: PLC0415 - runs other programs

    info = get_cpu_info()
    flags = set(info.get("flags", []))
    return Machine(
        cpu=info.get("brand_raw") or platform.processor() or platform.machine(),
        flags=[flag for flag in _FLAGS if flag in flags],
        cores=physical_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def commit() -> str:
    """The commit of the code, with + if files have changed; empty outside git."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", "-C", folder, *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    if git("rev-parse", "--show-toplevel") != str(folder):
        return ""
    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")


def drop_cached_pages(files: list[Path]) -> None:
    """Drop the pages of `files` from the page cache, if the system supports it."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync_disks() -> None:
    """Wait until all written data is on disk, if the system supports it."""
    if hasattr(os, "sync"):
        os.sync()


def available_memory() -> int:
    """Bytes of memory that can be allocated without swapping."""
    import psutil  # noqa: PLC0415

    return int(psutil.virtual_memory().available)
