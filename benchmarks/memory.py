"""Runs a command and monitors its memory by kind of page, optionally with a limit.

`python -m issun.benchmarks.memory [--json FILE] [--limit 1.2GB] -- COMMAND ...`

Anonymous pages are memory that the process has allocated. File pages are clean copies of files,
which the kernel may drop under memory pressure. All values are for the whole process tree.
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

from issun.benchmarks.measured import Memory
from issun.benchmarks.sizes import gigabytes, parse_size

INTERVAL = 0.02  # seconds between samples
_LINUX = sys.platform.startswith("linux")
_FIELDS = {"VmHWM:": "peak", "RssAnon:": "anonymous", "RssFile:": "file", "RssShmem:": "shared"}


@dataclass(slots=True)
class CommandResult:
    """Memory, exit code (negative for a signal) and last stderr output of a command."""

    memory: Memory = field(default_factory=Memory)
    exit_code: int = 0
    over_limit: bool = False
    stderr: str = ""


def watch(
    command: list[str],
    *,
    on_line: Callable[[str, int], object] | None = None,
    limit: int | None = None,
    interval: float = INTERVAL,
) -> CommandResult:
    """Run `command` to its end and sample its memory every `interval` seconds.

    `on_line` is called with each line of stdout and the bytes of the latest sample; without it,
    stdout and stderr are inherited. The command is killed when its process tree exceeds `limit`
    bytes.
    """
    result, used = CommandResult(), 0
    started = time.perf_counter()
    piped = PIPE if on_line else None
    with Popen(command, stdout=piped, stderr=piped, text=True, encoding="utf-8") as process:
        tails: list[str] = []
        readers = []
        if on_line and process.stdout and process.stderr:
            readers = [
                read_lines(process.stdout, lambda line: on_line(line, used)),
                read_lines(process.stderr, tails.append),
            ]
        try:
            while process.poll() is None:
                used = _sample(process, result.memory)
                if limit is not None and used > limit:
                    result.over_limit = True
                    _kill(process)
                with suppress(TimeoutExpired):
                    process.wait(interval)
        except BaseException:
            _kill(process)
            raise
        for reader in readers:
            reader.join()
    result.exit_code = process.returncode
    result.memory.seconds = time.perf_counter() - started
    result.stderr = "".join(tails)[-2000:]
    return result


def _sample(process: Popen[str], memory: Memory) -> int:
    """Take in a sample of the live processes of the tree; returns its bytes.

    Processes that have ended no longer count, since their memory is free again.
    """
    now = Memory()
    try:
        tree = [psutil.Process(process.pid)]
        tree += tree[0].children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    for member in tree:
        for name, value in (_status(member.pid) if _LINUX else _portable(member)).items():
            setattr(now, name, getattr(now, name) + value)
    total = now.anonymous + now.file + now.shared
    if total > memory.anonymous + memory.file + memory.shared:
        memory.anonymous, memory.file, memory.shared = now.anonymous, now.file, now.shared
    # The kernel's peak includes what happens between samples.
    memory.peak = max(memory.peak, total, now.peak)
    return total


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    split = (line.split() for line in lines)
    return {_FIELDS[s[0]]: int(s[1]) * 1024 for s in split if s and s[0] in _FIELDS}


def _portable(process: psutil.Process) -> dict[str, int]:
    """The values from psutil on other systems; unshared pages count as anonymous."""
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
    """Call `take` with each line of the stream, in a thread; returns the thread."""

    def read() -> None:
        for line in stream:
            take(line)
        if at_end:
            at_end()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def describe(memory: Memory) -> str:
    """One line of output."""
    return (
        f"peak {gigabytes(memory.peak)} (at the largest sample: anonymous "
        f"{gigabytes(memory.anonymous)}, file {gigabytes(memory.file)}, shared "
        f"{gigabytes(memory.shared)}), {memory.seconds:.1f} s"
    )


def main() -> int:
    """Run the command and report on stderr; returns its exit status, or 137 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, prog="memory")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--limit", type=parse_size, help="kill it above this, such as 1.2GB")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("name a command to run")
    result = watch(command, limit=args.limit)
    print(describe(result.memory), file=sys.stderr)
    if args.json:
        args.json.write_bytes(msgspec.json.encode(result.memory) + b"\n")
    if result.over_limit:
        print(f"killed: it used more than {gigabytes(args.limit)}", file=sys.stderr)
        return 137
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
