"""Runs engines in rounds, with one process per engine and round, and stores the measurements.

As many engines as fit into memory are interleaved. Results are stored after every step, so that an
interrupted run can resume. If an engine fails or crashes, this is recorded and the others continue.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from issun.benchmarks.bandwidth import read_bandwidth
from issun.benchmarks.energy import Joules, Meter, Reading
from issun.benchmarks.engines.registry import BUNDLE, version_of
from issun.benchmarks.errors import BenchError
from issun.benchmarks.interleave import InterleavedWorker, run_interleaved
from issun.benchmarks.machine import available_memory, drop_cached_pages, sync_disks
from issun.benchmarks.measured import SHORTEST, EngineResult, Results, write_results
from issun.benchmarks.memory import watch
from issun.benchmarks.plan import Plan, Target, group_by_memory
from issun.benchmarks.progress import Progress, clock_time
from issun.benchmarks.worker import ANSWERED, FIRST_TOKEN, Job, Work
from issun.benchmarks.workers import failure, refusal, worker_command

Report = Callable[[str], object]

_CONVERSION_INTERVAL = 0.1  # seconds between memory samples of a conversion, which is timed
_SPARE = 2_000_000_000  # bytes of memory left to the system


def check_model(target: Target, entry: EngineResult, checkpoint: Path | None) -> None:
    """Raise BenchError if the entry was measured with another model than the target's."""
    if entry.bundle and entry.bundle != target.create_engine(checkpoint).bundle_id():
        raise BenchError(
            "{label} was measured with another model: name another file.", label=entry.label
        )


@dataclass(slots=True)
class Runner:
    """Runs a plan and stores the results in `output` as they grow."""

    plan: Plan
    results: Results
    output: Path
    report: Report
    meter: Meter = field(default_factory=Meter)

    def run(self) -> Results:
        """Measure everything that `results` does not have yet."""
        progress = Progress()
        self._bandwidth()
        for target in self.plan.targets:
            self._convert(target)
        for threads in self.plan.threads:
            for target in self.plan.targets:
                self._load_cold(target, threads)
        sync_disks()
        progress.plan(self._work_left())
        for threads in self.plan.threads:
            for target in self.plan.targets:
                for context in self.plan.contexts:
                    self._memory(target, threads, context, progress)
        last = 0.0
        for number in range(self.plan.rounds):
            if number and self.plan.seconds is not None:
                ends = progress.elapsed + last
                if ends > self.plan.seconds:
                    self.report(f"no more rounds: the next would end after {clock_time(ends)}")
                    break
            before = progress.elapsed
            for threads in self.plan.threads:
                for group in self._groups(threads, number):
                    self._round(group, threads, number, progress)
            last = progress.elapsed - before
        self.report(f"took {clock_time(progress.elapsed)}")
        return self.results

    def _work_left(self) -> float:
        plan, work = self.plan, 0
        for threads in plan.threads:
            for entry in (self._entry(target, threads) for target in plan.targets):
                if entry.status == "measured":
                    work += plan.round_work * max(0, plan.rounds - entry.rounds)
                    new = (size for size in plan.contexts if size not in entry.memory)
                    work += sum(map(plan.memory_work, new))
        return work

    def _groups(self, threads: int, number: int) -> list[list[Target]]:
        """The groups of interleaved engines, in a different order in each round."""
        waiting = [t for t in self.plan.targets if self._is_due(self._entry(t, threads), number)]
        order = np.random.default_rng(number).permutation(len(waiting))
        ordered = [waiting[i] for i in order]
        return group_by_memory(ordered, self.plan.checkpoint, available_memory() - _SPARE)

    @staticmethod
    def _is_due(entry: EngineResult, number: int) -> bool:
        return entry.status == "measured" and entry.rounds <= number

    def _bandwidth(self) -> None:
        for threads in self.plan.threads:
            if threads not in self.results.bandwidth:
                self.report(f"read bandwidth, {threads} threads")
                self.results.idle = self.meter.idle_power()
                found = read_bandwidth(threads, self.meter, self.results.idle)
                self.results.bandwidth[threads] = found.rates
                self.results.byte_energy[threads] = found.byte_energy
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
        begun, complete = target.marks
        if target.engine != BUNDLE and not complete.exists() and entries[0].status == "measured":
            self.report(f"{target.label}: converting")
            target.remove()
            begun.parent.mkdir(parents=True, exist_ok=True)
            begun.touch()
            target.folder.mkdir()
            done = watch(
                worker_command(self._job(target, "convert")),
                on_line=lambda line, used: None,
                interval=_CONVERSION_INTERVAL,
            )
            for entry in entries:
                if not self._failed(entry, done.exit_code, done.stderr):
                    entry.conversion = done.memory
            if entries[0].status == "measured":
                complete.touch()
        if entries[0].status == "measured":
            for entry in entries:
                check_model(target, entry, self.plan.checkpoint)
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

    def _round(self, group: list[Target], threads: int, number: int, progress: Progress) -> None:
        names = ", ".join(target.label for target in group)
        rounds = f"round {number + 1} of {self.plan.rounds}"
        self.report(f"{rounds}: {names}, {threads} threads ({progress})")
        self._run([(self._entry(t, threads), self._speed_job(t, threads)) for t in group])
        progress.add(self.plan.round_work * len(group))

    def _run(self, jobs: list[tuple[EngineResult, Job]]) -> None:
        workers: list[InterleavedWorker] = []
        try:
            for _, job in jobs:
                workers.append(InterleavedWorker(worker_command(job)))
            run_interleaved(workers, lambda test: self.report(f"  {test}"))
        finally:  # also keep what was measured before an interruption
            for (entry, job), worker in zip(jobs, workers, strict=False):
                worker.kill()
                self._collect(entry, job, worker)
            self._store()

    def _collect(self, entry: EngineResult, job: Job, worker: InterleavedWorker) -> None:
        """Add a worker's measurements to its entry, unless it failed."""
        if worker.exit_code and self._failed(entry, worker.exit_code, worker.stderr):
            return
        for line in worker.lines:
            if seconds := [max(SHORTEST, value) for value in line.get("seconds", ())]:
                entry.samples.setdefault(line["test"], []).extend(seconds)
            for name, value in line.get("about", {}).items():
                setattr(entry, name, value)
        entry.rounds += job.work == "speed" and worker.exit_code == 0

    def _speed_job(self, target: Target, threads: int) -> Job:
        plan = self.plan
        return self._job(
            target,
            "speed",
            threads=threads,
            prefills=list(plan.prefills),
            depths=list(plan.depths),
            turn=plan.turn,
        )

    def _memory(self, target: Target, threads: int, context: int, progress: Progress) -> None:
        entry = self._entry(target, threads)
        if entry.status != "measured" or context in entry.memory:
            return
        self.report(f"memory at {context} tokens: {target.label}, {threads} threads ({progress})")
        readings: dict[str, Reading] = {}
        resting = 0

        def take(line: str, resident: int) -> None:
            nonlocal resting
            if mark := json.loads(line).get("mark"):
                readings[mark], resting = self.meter.read(), resident

        job = self._job(target, "memory", threads=threads, context=context)
        done = watch(worker_command(job), on_line=take)
        if not self._failed(entry, done.exit_code, done.stderr):
            done.memory.resting = resting
            entry.memory[context] = done.memory
            entry.energy[context] = self._token_energy(readings)
        progress.add(self.plan.memory_work(context))
        self._store()

    def _token_energy(self, readings: dict[str, Reading]) -> Joules:
        """The energy above idle of a token between the first one and the end of the answer."""
        decoded = self.plan.new_tokens - 1
        if not decoded:
            return Joules()
        first, last = readings[FIRST_TOKEN], readings[ANSWERED]
        used = self.meter.between(first, last)
        return used.above(self.results.idle, last.seconds - first.seconds).times(1 / decoded)

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
