"""The process of an engine: does one job, given as JSON, and prints its measurements.

Each line of stdout is JSON: `{"test": name, "times": [...]}` with values of `time.perf_counter`,
which all processes share, or with `"seconds"`; `{"mark": name}`; `{"about": {...}}`; `{"waits":
name, "alone": ...}` before a speed test, which starts after a line on stdin; `{"steps": tokens so
far}` during it. Other output of libraries is redirected to stderr.
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

Work = Literal["convert", "load", "speed", "memory", "score"]
WINDOWS, LOGITS = "windows.json", "logits"  # files of a scoring job
FIRST_TOKEN, ANSWERED, RESTED = "first token", "answered", "rested"  # marks of a memory test
_PR_SET_PDEATHSIG = 1  # prctl(2)
_REPORT_INTERVAL = 0.05  # seconds between reports of steps, long enough to cost nothing
REST = 0.5  # seconds of idling after the answer, in which an engine may free memory


class Job(msgspec.Struct, kw_only=True):
    """A worker's job and the name of its engine in the registry."""

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
    turn: bool = False
    context: int = 0
    vocab_size: int = 0
    seed: int = 0
    calibration: str | None = None  # a text, for engines that fit their weights to one
    scores: str = ""  # the folder with WINDOWS, into which LOGITS is written

    def make_engine(self) -> Engine:
        """The engine, not loaded yet."""
        return engine_class(self.engine)(
            Path(self.checkpoint),
            Path(self.folder),
            self.kv_cache,
            trust=self.trust,
            calibration=Path(self.calibration) if self.calibration else None,
        )

    def ids(self, count: int) -> list[int]:
        """Random token ids, the same for every engine."""
        ids = np.random.default_rng(self.seed).integers(7, self.vocab_size, count)
        return [int(token) for token in ids]


def main() -> None:
    """Do the job of the command line."""
    try:
        job = msgspec.json.decode("".join(sys.argv[1:]), type=Job)
    except msgspec.DecodeError as error:
        from issun.benchmarks.errors import BenchError  # noqa: PLC0415 - it imports the runtime

        raise BenchError("A worker needs one job as JSON: {reason}", reason=error) from error
    _end_with_parent()
    report = Reporter(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # so that output of libraries is not mistaken for measurements
    engine = job.make_engine()
    if job.work == "convert":
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        engine.convert()
    elif job.work == "load":
        measure_load(engine, job, report, partial(wait, report), "load-first")
    elif job.work == "speed":
        measure_speed(engine, job, report, partial(wait, report))
    elif job.work == "memory":
        measure_memory(engine, job, report)
    else:
        write_scores(engine, job, report)


def _end_with_parent() -> None:
    """End with the parent process: a suspended worker would keep its memory forever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Reporter:
    """Writes JSON objects, one per line, unbuffered."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, **content: Any) -> None:
        """Write `content`."""
        print(json.dumps(content), file=self._stream, flush=True)


def wait(report: Callable[..., None], test: str, *, alone: bool = False) -> None:
    """Wait for a line on stdin before `test`; if `alone`, the test must not be suspended."""
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
    """Measure loading as `test`, and report the properties of the loaded engine."""
    wait(test, alone=True)
    started = time.perf_counter()
    engine.load(job.threads)
    report(test=test, times=[started, time.perf_counter()])
    weights, cache = engine.bytes_read()
    report(
        about={
            **{"weight_bytes": weights, "kv_bytes": cache, "bundle": engine.bundle_id()},
            **{"settings": engine.describe_settings(), "chunk": engine.chunk},
            "kv_cache": engine.kv_type,
        }
    )


def measure_speed(
    engine: Engine, job: Job, report: Callable[..., None], wait: Callable[..., None]
) -> None:
    """Measure load, prefill and decode at every size, cold first and then warm."""

    def timed(ids: list[int], count: int) -> list[float]:
        return token_times(engine.generate(ids, count), lambda steps: report(steps=steps))

    measure_load(engine, job, report, wait)
    for size in sorted({*job.prefills, *job.depths}):
        ids = job.ids(max(1, size))  # decoding needs at least one token before it
        if size in job.prefills:
            wait(f"cold-{size}")
            report(test=f"cold-{size}", times=timed(ids, 1))
        count = 1 + job.new_tokens if size in job.depths else 1
        wait(f"warm-{size}")
        times = timed(ids, count)
        if size in job.prefills:
            report(test=f"prefill-{size}", times=times[:2])
        if count > 1:
            report(test=f"decode-{size}", times=times[1:])
    if job.turn:
        wait("turn", alone=True)
        for test, seconds in engine.chat_turn().items():
            report(test=test, seconds=[seconds])


def token_times(tokens: Iterator[None], report: Callable[[int], object]) -> list[float]:
    """The times of the start and of each token; `report` is called with the number of tokens."""
    times = [time.perf_counter()]
    reported = times[0]
    for _ in tokens:
        times.append(time.perf_counter())
        if times[-1] - reported > _REPORT_INTERVAL:
            report(len(times) - 1)
            reported = times[-1]
    return times


def measure_memory(engine: Engine, job: Job, report: Reporter) -> None:
    """Load, prefill a prompt and decode until the context has `job.context` tokens."""
    engine.load(job.threads)
    tokens = engine.generate(job.ids(job.context - job.new_tokens), job.new_tokens)
    next(tokens)
    report(mark=FIRST_TOKEN)
    for _ in tokens:
        pass
    report(mark=ANSWERED)
    time.sleep(REST)
    report(mark=RESTED)


def write_scores(engine: Engine, job: Job, report: Callable[..., None]) -> None:
    """Write the logits of every position of every window, in float32, one after the other."""
    folder = Path(job.scores)
    engine.load(job.threads)
    report(about={"settings": engine.describe_settings(), "types": engine.matrix_types()})
    with (folder / LOGITS).open("wb") as file:
        for window in json.loads((folder / WINDOWS).read_text()):
            logits = engine.logits(window)
            # Some engines pad the vocabulary.
            file.write(np.ascontiguousarray(logits[:, : job.vocab_size], np.float32).tobytes())


if __name__ == "__main__":
    main()
