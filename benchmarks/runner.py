"""Runs engines in rounds, with one process per engine and round, and stores the measurements.

As many engines as fit into memory are interleaved. Results are stored after every step, so that an
interrupted run can resume. If an engine fails or crashes, this is recorded and the others continue.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from issun.benchmarks.bandwidth import read_bandwidth
from issun.benchmarks.engines.registry import BUNDLE, missing_packages, version_of
from issun.benchmarks.interleave import InterleavedWorker, run_interleaved
from issun.benchmarks.machine import available_memory, drop_cached_pages, sync_disks
from issun.benchmarks.measured import EngineResult, Memory, Results, Status, write_results
from issun.benchmarks.memory import INTERVAL, CommandResult, watch
from issun.benchmarks.plan import Plan, Target, group_by_memory
from issun.benchmarks.steady import steady_bandwidth
from issun.benchmarks.worker import Job, Work
from issun.export.config import read_config

Report = Callable[[str], object]

_CONVERSION_INTERVAL = 0.1  # seconds between memory samples of a conversion, which is timed
_SPARE = 2_000_000_000  # bytes of memory left to the system


@dataclass(slots=True)
class Runner:
    """Runs a plan and stores the results in `output` as they grow."""

    plan: Plan
    results: Results
    output: Path
    report: Report

    def run(self) -> Results:
        """Measure everything that `results` does not have yet."""
        self._bandwidth()
        for target in self.plan.targets:
            self._convert(target)
        for threads in self.plan.threads:
            for target in self.plan.targets:
                self._load_cold(target, threads)
        sync_disks()
        for number in range(self.plan.rounds):
            for threads in self.plan.threads:
                for group in self._groups(threads, number):
                    self._round(group, threads, number)
        for threads in self.plan.threads:
            for target in self.plan.targets:
                for context in self.plan.contexts:
                    self._memory(target, threads, context)
        return self.results

    def _groups(self, threads: int, number: int) -> list[list[Target]]:
        """The groups of interleaved engines, in a different order in each round.

        In a steady run each engine is alone, since it waits for the machine's usual speed.
        """
        waiting = [t for t in self.plan.targets if self._is_due(self._entry(t, threads), number)]
        order = np.random.default_rng(number).permutation(len(waiting))
        room = 0 if self.plan.steady else available_memory() - _SPARE
        ordered = [waiting[i] for i in order]
        return group_by_memory(ordered, self.plan.checkpoint, room)

    @staticmethod
    def _is_due(entry: EngineResult, number: int) -> bool:
        return entry.status == "measured" and entry.rounds <= number

    def _bandwidth(self) -> None:
        for threads in self.plan.threads:
            if threads not in self.results.bandwidth:
                self.report(f"read bandwidth, {threads} threads")
                measure = steady_bandwidth if self.plan.steady else read_bandwidth
                self.results.bandwidth[threads] = measure(threads)
                self._store()

    def _convert(self, target: Target) -> None:
        entries = [self._entry(target, threads) for threads in self.plan.threads]
        reason = refusal(target, self.plan.checkpoint)
        if reason:
            for entry in entries:
                entry.status, entry.reason = "skipped", reason
            self.report(f"{target.label}: {entries[0].reason}")
            self._store()
            return
        for entry in entries:
            entry.versions = {name: version_of(name) or "" for name in target.kind.packages}
        complete = target.folder.with_name(target.folder.name + ".whole")
        if target.engine != BUNDLE and not complete.exists() and entries[0].status == "measured":
            self.report(f"{target.label}: converting")
            shutil.rmtree(target.folder, ignore_errors=True)
            target.folder.mkdir(parents=True)
            done = self._work(self._job(target, "convert"))
            for entry in entries:
                if not self._failed(entry, done.exit_code, done.stderr):
                    entry.conversion = done.memory
            if entries[0].status == "measured":
                complete.touch()
        if entries[0].status == "measured":
            for entry in entries:
                entry.disk_bytes = self._disk(target)
        self._store()

    def _load_cold(self, target: Target, threads: int) -> None:
        """Measure the first load before all rounds, since its disk writes would disturb others."""
        entry = self._entry(target, threads)
        if entry.status != "measured" or "load-first" in entry.samples:
            return
        self.report(f"first load: {target.label}, {threads} threads")
        drop_cached_pages(target.create_engine(self.plan.checkpoint).weights())
        self._run([(entry, self._job(target, "load", threads=threads))])
        entry.disk_bytes = self._disk(target)  # includes packed weights
        self._store()

    def _round(self, group: list[Target], threads: int, number: int) -> None:
        names = ", ".join(target.label for target in group)
        self.report(f"round {number + 1} of {self.plan.rounds}: {names}, {threads} threads")
        self._run([(self._entry(t, threads), self._speed_job(t, threads)) for t in group])

    def _run(self, jobs: list[tuple[EngineResult, Job]]) -> None:
        workers: list[InterleavedWorker] = []
        window = self.results.next_window()
        try:
            for _, job in jobs:
                workers.append(InterleavedWorker(worker_command(job)))
            run_interleaved(workers, lambda test: self.report(f"  {test}"))
        finally:  # also keep what was measured before an interruption
            for (entry, job), worker in zip(jobs, workers, strict=False):
                worker.kill()
                self._collect(entry, job, worker, window)
            self.results.settle()
            self._store()

    def _collect(
        self, entry: EngineResult, job: Job, worker: InterleavedWorker, window: int
    ) -> None:
        """Add a worker's measurements to its entry, unless it failed."""
        if worker.exit_code and self._failed(entry, worker.exit_code, worker.stderr):
            return
        for line in worker.lines:
            self._add(entry, line, window)
        entry.rounds += job.work == "speed" and worker.exit_code == 0

    def _speed_job(self, target: Target, threads: int) -> Job:
        plan = self.plan
        return self._job(
            target,
            "speed",
            threads=threads,
            prefills=list(plan.prefills),
            depths=list(plan.depths),
            samples=plan.samples,
            turn=plan.turn,
            usual=median(self.results.bandwidth[threads]) if plan.steady else None,
        )

    def _memory(self, target: Target, threads: int, context: int) -> None:
        entry = self._entry(target, threads)
        if entry.status != "measured" or context in entry.memory:
            return
        self.report(f"memory at {context} tokens: {target.label}, {threads} threads")
        job = self._job(target, "memory", threads=threads, context=context)
        done = self._work(job)
        if not self._failed(entry, done.exit_code, done.stderr):
            entry.memory[context] = _downsampled(done.memory)
        self._store()

    def _job(self, target: Target, work: Work, **more: Any) -> Job:
        plan = self.plan
        return Job(
            work=work,
            engine=target.engine,
            kv_cache=target.kv_cache,
            trust=target.trust,
            checkpoint=str(plan.checkpoint or target.folder),
            folder=str(target.folder),
            new_tokens=plan.new_tokens,
            vocab_size=plan.vocab_size,
            seed=plan.seed,
            **more,
        )

    def _work(self, job: Job) -> CommandResult:
        return watch(
            worker_command(job),
            on_line=lambda line: json.loads(line).get("mark"),
            keep_moments=job.work == "memory",
            interval=INTERVAL if job.work == "memory" else _CONVERSION_INTERVAL,
        )

    def _add(self, entry: EngineResult, line: dict[str, Any], window: int) -> None:
        if "test" in line:
            test, seconds = line["test"], line["seconds"]
            entry.samples.setdefault(test, []).extend(seconds)
            if self.results.turn and test.rpartition("-")[2].isdigit():  # an interleaved test
                entry.windows.setdefault(test, []).extend([window] * len(seconds))
        elif "unsteady" in line:
            entry.unsteady += line["unsteady"]
        elif "about" in line:
            for name, value in line["about"].items():
                setattr(entry, name, value)

    def _failed(self, entry: EngineResult, exit_code: int, stderr: str) -> bool:
        if exit_code == 0:
            return False
        entry.status, entry.reason = failure(exit_code, stderr)
        self.report(f"{entry.label}: {entry.status}: {entry.reason}")
        return True

    def _disk(self, target: Target) -> int:
        return sum(
            path.stat().st_size for path in target.create_engine(self.plan.checkpoint).weights()
        )

    def _entry(self, target: Target, threads: int) -> EngineResult:
        entry = self.results.engine(target.name, threads)
        if entry is None:
            entry = EngineResult(
                name=target.name,
                label=target.label,
                threads=threads,
                settings=target.kind.settings,
            )
            self.results.engines.append(entry)
        return entry

    def _store(self) -> None:
        write_results(self.output, self.results)


def refusal(target: Target, checkpoint: Path | None) -> str:
    """Why the target's engine cannot run the checkpoint; empty if it can."""
    families = target.kind.families
    if checkpoint is not None and families:
        family = read_config(checkpoint)[1].family
        if family not in families:
            return f"supports {', '.join(families)}, not {family}"
    missing = missing_packages(target.kind)
    return f"not installed: {', '.join(missing)}" if missing else ""


def failure(exit_code: int, stderr: str) -> tuple[Status, str]:
    """The status and reason of a worker that ended with a code other than zero."""
    if exit_code < 0:
        return "crashed", f"killed by {signal.Signals(-exit_code).name}"
    return "failed", _last_line(stderr) or f"exit code {exit_code}"


def worker_command(job: Job) -> list[str]:
    """The command of a process that does the job."""
    job_text = msgspec.json.encode(job).decode()
    return [sys.executable, "-P", "-m", "issun.benchmarks.worker", job_text]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _downsampled(memory: Memory, max_moments: int = 400) -> Memory:
    """The same memory with at most `max_moments` moments, which are enough for a plot."""
    step = -(-len(memory.moments) // max_moments) or 1
    return msgspec.structs.replace(memory, moments=memory.moments[::step])
