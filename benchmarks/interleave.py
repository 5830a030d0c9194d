"""Interleaves workers in short time slices, so that all of them see the same machine.

A virtual or hot machine changes its speed from minute to minute. Engines measured one after the
other see different conditions, which makes their ratio meaningless; interleaved they share them.
Waiting workers are suspended, and that time is excluded from their measurements. While decoding,
workers report their steps, and the one with the fewest goes next. With equal numbers of slices, the
fast workers would finish when the slow ones have barely started, under other conditions.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen
from typing import IO, Any, cast

import psutil

from issun.benchmarks.memory import read_lines

TIME_SLICE = 0.1  # seconds; long enough to refill caches, short for a machine's changes of speed


class InterleavedWorker:
    """A worker process that waits before each test, and can be suspended during it.

    `waits` is the test that it waits to start, and `alone` is true if that test must not be
    suspended. `steps` counts the reported steps of the current test, `lines` are the measurements
    so far. After the process has ended, `waits` is empty and `exit_code` is set.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start the process; returns when it waits for its first test or has ended."""
        self.lines: list[dict[str, Any]] = []
        self.waits, self.alone = "", False
        self.steps = 0
        self.exit_code: int | None = None
        self._pauses: list[tuple[float, float]] = []
        self._suspended_at: float | None = None
        self._stdout_lines: SimpleQueue[str] = SimpleQueue()
        self._stderr_lines: deque[str] = deque(maxlen=50)
        self._process = Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, encoding="utf-8"
        )
        read_lines(
            self._pipe("stdout"),
            self._stdout_lines.put,
            at_end=partial(self._stdout_lines.put, ""),
        )
        self._stderr_reader = read_lines(self._pipe("stderr"), self._stderr_lines.append)
        self.run_for()

    def _pipe(self, name: str) -> IO[str]:
        return cast("IO[str]", getattr(self._process, name))

    @property
    def stderr(self) -> str:
        """The last lines of its stderr."""
        return "".join(self._stderr_lines)

    def begin(self) -> None:
        """Allow the test that it waits for to start."""
        self._pauses.clear()
        self.steps = 0
        with suppress(BrokenPipeError):
            print(file=self._pipe("stdin"), flush=True)

    def run_for(self, seconds: float | None = None) -> bool:
        """Let it run, without a time limit if None; returns True if its test has ended."""
        ends = None if seconds is None else time.perf_counter() + seconds
        while True:
            remaining = None if ends is None else max(0.0, ends - time.perf_counter())
            try:
                line = self._stdout_lines.get(timeout=remaining)
            except Empty:
                return False
            if not line:
                self.waits, self.exit_code = "", self._process.wait()
                self._stderr_reader.join()
                return True
            content = json.loads(line)
            if "waits" in content:
                self.waits, self.alone = content["waits"], content["alone"]
                return True
            if "steps" in content:
                self.steps = content["steps"]
                continue
            if "times" in content:
                content["seconds"] = running_seconds(content.pop("times"), self._pauses)
            self.lines.append(content)

    def suspend(self) -> None:
        """Suspend the process."""
        if self.exit_code is None:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).suspend()
            self._suspended_at = time.perf_counter()

    def resume(self) -> None:
        """Resume the process."""
        if self.exit_code is None and self._suspended_at is not None:
            self._pauses.append((self._suspended_at, time.perf_counter()))
            self._suspended_at = None
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).resume()

    def kill(self) -> None:
        """Kill the process, if it runs, and close its pipes."""
        if self.exit_code is None:
            self._process.kill()
            self._process.wait()
        for name in ("stdin", "stdout", "stderr"):
            with suppress(BrokenPipeError):
                self._pipe(name).close()


def running_seconds(times: Sequence[float], pauses: Sequence[tuple[float, float]]) -> list[float]:
    """The durations between successive `times`, without the time in `pauses` (from, until)."""

    def paused(start: float, end: float) -> float:
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in pauses)

    return [end - start - paused(start, end) for start, end in pairwise(times)]


def run_interleaved(workers: Sequence[InterleavedWorker], report: Callable[[str], object]) -> None:
    """Run all tests of `workers` to the end, each test on all of them at the same time."""
    while alive := [worker for worker in workers if worker.exit_code is None]:
        test, alone = alive[0].waits, alive[0].alone
        report(test)
        same = [worker for worker in alive if worker.waits == test]
        if alone or len(same) == 1:
            for worker in same:
                worker.begin()
                worker.run_for()
        else:
            _interleave(same)


def _interleave(workers: Sequence[InterleavedWorker]) -> None:
    """Run the current test of all workers in time slices until all have finished it."""
    for worker in workers:
        worker.suspend()
        worker.begin()
    queue = list(workers)
    while queue:
        worker = min(queue, key=lambda waiting: waiting.steps)  # among equals the first in line
        queue.remove(worker)
        worker.resume()
        if not worker.run_for(TIME_SLICE if queue else None):
            queue.append(worker)
        worker.suspend()  # also after its test, since busy-waiting threads would disturb the others
    for worker in workers:
        worker.resume()
