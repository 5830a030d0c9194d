"""Runs a command and watches its memory, anonymous and file-backed pages apart; can set a limit.

`python -m issun.benchmarks.memory [--json FILE] [--limit 1.2GB] -- COMMAND ...`

Anonymous pages are memory that the process has made; file pages are clean copies of files, which
the kernel may drop under pressure. All figures are of the whole process tree.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO

import msgspec
import psutil

from issun.benchmarks.measured import Memory, Moment
from issun.benchmarks.sizes import gigabytes, parse_size

INTERVAL = 0.02  # seconds between two looks
_LINUX = sys.platform.startswith("linux")
_FIELDS = {"VmHWM:": "peak", "RssAnon:": "anonymous", "RssFile:": "file", "RssShmem:": "shared"}


@dataclass(slots=True)
class Watched:
    """What became of a command: its memory, exit code (negative: a signal), and stderr's end."""

    memory: Memory = field(default_factory=Memory)
    exit_code: int = 0
    over_limit: bool = False
    complaint: str = ""


def watch(
    command: list[str],
    *,
    on_line: Callable[[str], str | None] | None = None,
    limit: int | None = None,
    keep_moments: bool = False,
    interval: float = INTERVAL,
) -> Watched:
    """Run `command` to its end and look at its memory every `interval` seconds.

    `on_line` gets each line of its stdout and may name a mark for it; without it, stdout and stderr
    go where ours go. The command is killed once its tree holds more than `limit` bytes.
    """
    found = Watched()
    started = time.perf_counter()
    piped = PIPE if on_line else None
    with Popen(command, stdout=piped, stderr=piped, text=True, encoding="utf-8") as process:
        tails: list[str] = []
        readers = []
        if on_line and process.stdout and process.stderr:

            def take(line: str) -> None:
                if mark := on_line(line):
                    found.memory.marks.append((time.perf_counter() - started, mark))

            readers = [read_lines(process.stdout, take), read_lines(process.stderr, tails.append)]
        try:
            while process.poll() is None:
                held = _look(process, found, time.perf_counter() - started, keep=keep_moments)
                if limit is not None and held > limit:
                    found.over_limit = True
                    _kill(process)
                with suppress(TimeoutExpired):
                    process.wait(interval)
        except BaseException:
            _kill(process)
            raise
        for reader in readers:
            reader.join()
    found.exit_code = process.returncode
    found.memory.seconds = time.perf_counter() - started
    found.complaint = "".join(tails)[-2000:]
    return found


def _look(process: Popen[str], found: Watched, seconds: float, *, keep: bool) -> int:
    """Add what the tree holds now, and give the bytes."""
    try:
        now, peak = _moment(psutil.Process(process.pid), seconds)
    except psutil.NoSuchProcess:
        return 0
    memory = found.memory
    if now.total > memory.anonymous + memory.file + memory.shared:
        memory.anonymous, memory.file, memory.shared = now.anonymous, now.file, now.shared
    # The kernel's own peak sees what falls between two looks.
    memory.peak = max(memory.peak, now.total, peak)
    if now.total and keep:
        memory.moments.append(now)
    return now.total


def _moment(process: psutil.Process, seconds: float) -> tuple[Moment, int]:
    """What the living processes of the tree hold, and the sum of their own peaks.

    Those that have ended do not count any more: their memory is free again.
    """
    sums = {"peak": 0, "anonymous": 0, "file": 0, "shared": 0}
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for member in tree:
        for name, value in (_status(member.pid) if _LINUX else _portable(member)).items():
            sums[name] += value
    peak = sums.pop("peak")
    return Moment(seconds, **sums), peak


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    split = (line.split() for line in lines)
    return {_FIELDS[s[0]]: int(s[1]) * 1024 for s in split if s and s[0] in _FIELDS}


def _portable(process: psutil.Process) -> dict[str, int]:
    """What psutil can tell elsewhere: pages of the process alone count as anonymous."""
    try:
        info = process.memory_full_info()
    except psutil.Error:
        return {}
    peak = getattr(info, "peak_wset", info.rss)
    return {"peak": peak, "anonymous": info.uss, "file": max(0, info.rss - info.uss)}


def _kill(process: Popen[str]) -> None:
    try:
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def read_lines(
    stream: IO[str], take: Callable[[str], object], at_end: Callable[[], object] | None = None
) -> threading.Thread:
    """Give each line to `take`, in the thread that is returned and ends with the stream."""

    def read() -> None:
        for line in stream:
            take(line)
        if at_end:
            at_end()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def describe(memory: Memory) -> str:
    """One line for a person."""
    return (
        f"peak {gigabytes(memory.peak)} (at the largest sample: anonymous "
        f"{gigabytes(memory.anonymous)}, file {gigabytes(memory.file)}, shared "
        f"{gigabytes(memory.shared)}), {memory.seconds:.1f} s"
    )


def main() -> int:
    """Read the command line, run the command, report to stderr; 137 when the limit was passed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="memory")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--limit", type=parse_size, help="kill it above this much, such as 1.2GB")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("name a command to run")
    found = watch(command, limit=args.limit)
    print(describe(found.memory), file=sys.stderr)
    if args.json:
        args.json.write_bytes(msgspec.json.encode(found.memory) + b"\n")
    if found.over_limit:
        print(f"killed: it held more than {gigabytes(args.limit)}", file=sys.stderr)
        return 137
    return found.exit_code


if __name__ == "__main__":
    sys.exit(main())
