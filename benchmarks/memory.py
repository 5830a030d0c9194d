"""Runs a command and reports its memory, anonymous and file-backed pages apart (Linux).

`python -m issun.benchmarks.memory [--json FILE] -- COMMAND ...`

Anonymous pages are memory that the process has made; file pages are clean copies of files, which
the kernel may drop under pressure. Peak is the kernel's own, summed over the process tree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_INTERVAL = 0.02
_FIELDS = {"VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "file", "RssShmem": "shared"}


@dataclass(slots=True)
class MemoryReport:
    """Peaks in bytes, wall time in seconds, exit code of the command."""

    peak: int = 0
    anonymous: int = 0
    file: int = 0
    shared: int = 0
    seconds: float = 0.0
    exit_code: int = 0

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"peak {self.peak / 1e6:,.0f} MB (anonymous {self.anonymous / 1e6:,.0f}, "
            f"file {self.file / 1e6:,.0f}, shared {self.shared / 1e6:,.0f} at their own peaks), "
            f"{self.seconds:.1f} s"
        )


def measure(command: list[str], *, quiet: bool = False) -> MemoryReport:
    """Run `command` to its end and watch the resident memory of it and its children.

    `quiet` keeps its output off the terminal.
    """
    report, peaks = MemoryReport(), dict[int, int]()
    started = time.perf_counter()
    sink = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, stdout=sink, stderr=sink) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            now = {"anonymous": 0, "file": 0, "shared": 0}
            for pid in _tree(watched):
                for name, value in _status(pid).items():
                    if name == "peak":
                        peaks[pid] = value
                    else:
                        now[name] += value
            for name, value in now.items():
                setattr(report, name, max(getattr(report, name), value))
            report.peak = max(report.peak, sum(peaks.values()))
            time.sleep(_INTERVAL)
        report.exit_code = process.returncode
    report.seconds = time.perf_counter() - started
    return report


def _tree(process: psutil.Process) -> list[int]:
    try:
        return [process.pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    split = (line.split(":", 1) for line in lines if ":" in line)
    return {_FIELDS[key]: int(value.split()[0]) * 1024 for key, value in split if key in _FIELDS}


def main() -> int:
    """Read the command line, run the command, report to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, prog="memory")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command or not sys.platform.startswith("linux"):
        parser.error("name a command to run" if not command else "this needs Linux's /proc")
    report = measure(command)
    print(report, file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
