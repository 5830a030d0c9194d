"""Runs fuzzing child processes, and reports which mutation made one crash or hang."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0  # seconds for one mutation; most take some hundredths


@dataclass(slots=True)
class Report:
    """How many mutations were `fine` or `refused`, and the faults of others by number."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)


def fuzz(target: str, folder: Path, *, seed: int, mutations: int) -> Report:
    """Try `mutations` of `target`; after a crash or hang, a new child continues with the next."""
    report, number = Report(), 0
    original = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    while number < mutations:
        number = _run(target, folder, seed, range(number, mutations), report) + 1
        for path, content in original.items():  # left by a child that crashed
            path.write_bytes(content)
    return report


def _run(target: str, folder: Path, seed: int, numbers: range, report: Report) -> int:
    """Let one child try the mutations `numbers`; returns the last one that it tried."""
    asked = [target, str(folder), *map(str, (seed, numbers.start, numbers.stop))]
    errors = (folder / "stderr").open("w+b")
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.fuzz.child", *asked],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ISSUN_CACHE": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    number, answered = numbers.start, True
    try:
        for line in _lines(child):
            kind, what = json.loads(line)
            answered = kind != "try"
            if kind == "try":
                number = what
            else:
                report.counts[kind] += 1
            if kind == "fault":
                report.faults[number] = what
        code = child.wait(PATIENCE)
    except (queue.Empty, subprocess.TimeoutExpired):
        report.faults[number] = f"no end after {PATIENCE:.0f} s"
        return number
    finally:
        child.kill()
        child.wait()
        errors.seek(0)
        said = errors.read()[-2000:].decode(errors="replace")
        errors.close()
    if not answered or code:
        report.faults[number] = f"the process ended with {code}: {said}"
    return number


def _lines(child: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """Yield the child's output lines; raises queue.Empty if there is none for too long."""
    lines: queue.Queue[bytes | None] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get(timeout=PATIENCE)) is not None:
        yield line
