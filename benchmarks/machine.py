"""Which machine this is, and which state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from issun.benchmarks.measured import Machine
from issun.runtime.cores import physical_cores

# What decides which kernels of a matrix product run.
_FLAGS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve"),
)


def this_machine() -> Machine:
    """CPU, flags, memory, system and Python of this machine."""
    import psutil  # noqa: PLC0415
    from cpuinfo import get_cpu_info  # noqa: PLC0415 - asks other programs

    info = get_cpu_info()
    found = set(info.get("flags", []))
    return Machine(
        cpu=info.get("brand_raw") or platform.processor() or platform.machine(),
        flags=[flag for flag in _FLAGS if flag in found],
        cores=physical_cores(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
    )


def commit() -> str:
    """The commit that the code is at, with + where files have changed; empty outside git."""
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


def forget_pages(files: list[Path]) -> None:
    """Drop the pages of `files` from the page cache, where the system takes that advice."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_all() -> None:
    """Wait until what was written to files is on the disk, where the system can be asked to."""
    if hasattr(os, "sync"):
        os.sync()


def free_memory() -> int:
    """Bytes that could be taken without pushing anything out."""
    import psutil  # noqa: PLC0415

    return int(psutil.virtual_memory().available)
