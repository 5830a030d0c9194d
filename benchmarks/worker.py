"""The process that an engine lives in: does one job, told as JSON, and prints what it measures.

Each line of stdout is JSON: `{"test": name, "times": [...]}` (of `time.perf_counter`, which all
processes share) or with `"seconds"`, `{"mark": what was just done}`, `{"about": {...}}`,
`{"unsteady": how many tests}`, `{"waits": name, "alone": ...}` before a test of speed, which begins
with a line on stdin, or `{"steps": tokens known}` within it. Libraries that print go to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import numpy as np

from issun.benchmarks.engines.base import Engine
from issun.benchmarks.engines.registry import engine_class
from issun.benchmarks.steady import Steady

Work = Literal["convert", "load", "speed", "memory"]
ANSWERED = "answered"  # the mark of a memory run at which its rest begins
_PR_SET_PDEATHSIG = 1  # prctl(2)
_TELL = 0.05  # seconds between two words about the steps done: seldom enough to cost nothing
REST = 0.5  # seconds of it: what an engine gives back after its work, it has given back by then


class Job(msgspec.Struct, kw_only=True):
    """What a worker does with which engine, named as the registry has it."""

    work: Work
    engine: str
    kv_cache: str | None = None
    trust: bool = False
    checkpoint: str
    folder: str
    threads: int = 1
    prefills: list[int] = []
    depths: list[int] = []
    new_tokens: int = 64
    samples: int = 1  # of each warm test
    turn: bool = False
    usual: float | None = None  # read bandwidth at which alone a sample counts
    context: int = 0
    vocab_size: int = 0
    seed: int = 0

    def make_engine(self) -> Engine:
        """The engine, not yet loaded."""
        return engine_class(self.engine)(
            Path(self.checkpoint), Path(self.folder), self.kv_cache, trust=self.trust
        )

    def ids(self, count: int) -> list[int]:
        """The same random ids for every engine."""
        made = np.random.default_rng(self.seed).integers(7, self.vocab_size, count)
        return [int(token) for token in made]


def main() -> None:
    """Do the job of the command line."""
    try:
        job = msgspec.json.decode("".join(sys.argv[1:]), type=Job)
    except msgspec.DecodeError as error:
        from issun.benchmarks.errors import BenchError  # noqa: PLC0415 - it imports the runtime

        raise BenchError("A worker gets one job as JSON: {reason}", reason=error) from error
    _end_with_parent()
    report = Reporter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever a library prints is not a measurement
    engine = job.make_engine()
    if job.work == "convert":
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        engine.convert()
    elif job.work == "load":
        measure_load(engine, job, report, partial(wait, report), "load-first")
    elif job.work == "speed":
        measure_speed(engine, job, report, partial(wait, report))
    else:
        measure_memory(engine, job, report)


def _end_with_parent() -> None:
    """Be killed when the harness is: who is stopped at that time would hold its memory for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Reporter:
    """Writes a JSON object a line, at once."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, **content: Any) -> None:
        """Write `content`."""
        print(json.dumps(content), file=self._stream, flush=True)


def wait(report: Callable[..., None], test: str, *, alone: bool = False) -> None:
    """Wait for a line before `test`, in which nothing may stop the process if it runs `alone`."""
    report(waits=test, alone=alone)
    if not sys.stdin.readline():
        raise SystemExit("The benchmark that this belongs to has ended.")


def measure_load(
    engine: Engine,
    job: Job,
    report: Callable[..., None],
    wait: Callable[..., None],
    test: str = "load",
) -> None:
    """Load, which is called `test`, and tell what is known of the engine from then on."""
    wait(test, alone=True)
    started = time.perf_counter()
    engine.load(job.threads)
    report(test=test, times=[started, time.perf_counter()])
    weights, cache = engine.reads()
    report(
        about={
            **{"weight_bytes": weights, "kv_bytes": cache, "bundle": engine.bundle_id()},
            "settings": engine.described(),
        }
    )


def measure_speed(
    engine: Engine, job: Job, report: Callable[..., None], wait: Callable[..., None]
) -> None:
    """Load, then read and decode at every size, each size cold before it is warm."""
    steady = Steady(job.threads, job.usual)

    def timed(ids: list[int], count: int) -> list[float]:
        return times_of_tokens(engine.generate(ids, count), lambda steps: report(steps=steps))

    measure_load(engine, job, report, wait)
    for size in sorted({*job.prefills, *job.depths}):
        ids = job.ids(max(1, size))  # nothing can be decoded behind nothing
        if size in job.prefills:
            wait(f"cold-{size}")
            report(test=f"cold-{size}", times=timed(ids, 1))
        count = 1 + job.new_tokens if size in job.depths else 1
        for _ in range(job.samples):
            wait(f"warm-{size}")
            times = steady(partial(timed, ids, count))
            if size in job.prefills:
                report(test=f"prefill-{size}", times=times[:2])
            if count > 1:
                report(test=f"decode-{size}", times=times[1:])
    if job.turn:
        wait("turn", alone=True)
        for test, seconds in engine.turn().items():
            report(test=test, seconds=[seconds])
    report(unsteady=steady.missed)


def times_of_tokens(tokens: Iterator[None], tell: Callable[[int], object]) -> list[float]:
    """When it began, and when each token was known; `tell` hears now and then how many are."""
    times = [time.perf_counter()]
    told = times[0]
    for _ in tokens:
        times.append(time.perf_counter())
        if times[-1] - told > _TELL:
            tell(len(times) - 1)
            told = times[-1]
    return times


def measure_memory(engine: Engine, job: Job, report: Reporter) -> None:
    """Load, read a prompt and answer until the context holds `job.context` tokens."""
    report(mark="started")
    engine.load(job.threads)
    report(mark="loaded")
    tokens = engine.generate(job.ids(job.context - job.new_tokens), job.new_tokens)
    next(tokens)
    report(mark="first token")
    for _ in tokens:
        pass
    report(mark=ANSWERED)
    time.sleep(REST)


if __name__ == "__main__":
    main()
