"""Runs engines in rounds, one process an engine and round, and keeps all that was measured.

Every piece of work is stored when it is done, so that a run that was stopped can go on. An engine
that fails or crashes is reported as such, and the others go on.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import msgspec

from issun.benchmarks.bandwidth import read_bandwidth
from issun.benchmarks.engines.base import Engine
from issun.benchmarks.engines.registry import BUNDLE, engine_class, missing_packages, version_of
from issun.benchmarks.machine import forget_pages
from issun.benchmarks.measured import EngineResult, Memory, Results, write_results
from issun.benchmarks.memory import INTERVAL, Watched, watch
from issun.benchmarks.steady import settled_bandwidth
from issun.benchmarks.worker import Job, Work

Say = Callable[[str], object]

# Seconds between two looks at a worker's memory: looking takes time from what is being timed.
_LOOKS: dict[Work, float] = {"convert": 0.1, "speed": 2.0, "memory": INTERVAL}


@dataclass(frozen=True, slots=True)
class Target:
    """An engine of the registry with the folder for its conversion, or a user's bundle."""

    name: str
    folder: Path
    engine: str = BUNDLE
    kv_cache: str | None = None

    @property
    def kind(self) -> type[Engine]:
        """The engine's class."""
        return engine_class(self.engine)

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name if self.engine == BUNDLE else self.kind.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured; sizes are in tokens."""

    targets: list[Target]
    checkpoint: Path | None
    threads: tuple[int, ...]
    vocab_size: int
    rounds: int
    prefills: tuple[int, ...]
    depths: tuple[int, ...]
    new_tokens: int
    samples: int  # of each warm test in a round
    contexts: tuple[int, ...]  # of the memory runs
    turn: bool
    steady: bool  # repeat what ran while the machine read at another speed than usual
    seed: int


@dataclass(slots=True)
class Runner:
    """One run of a plan, stored in `output` as it grows."""

    plan: Plan
    results: Results
    output: Path
    say: Say
    _lines: list[dict[str, object]] = field(default_factory=list)

    def run(self) -> Results:
        """Do all that `results` does not have yet."""
        self._bandwidth()
        for target in self.plan.targets:
            self._convert(target)
        for number in range(self.plan.rounds):
            for threads in self.plan.threads:
                for target in self._order(number):
                    self._round(target, threads, number)
        for threads in self.plan.threads:
            for target in self.plan.targets:
                for context in self.plan.contexts:
                    self._memory(target, threads, context)
        return self.results

    def _order(self, number: int) -> Iterator[Target]:
        """Every round begins with another engine, so that none always follows the same one."""
        targets = self.plan.targets
        start = number % len(targets)
        yield from targets[start:] + targets[:start]

    def _bandwidth(self) -> None:
        for threads in self.plan.threads:
            if threads not in self.results.bandwidth:
                self.say(f"read bandwidth, {threads} threads")
                measure = settled_bandwidth if self.plan.steady else read_bandwidth
                self.results.bandwidth[threads] = measure(threads)
                self._store()

    def _convert(self, target: Target) -> None:
        entries = [self._entry(target, threads) for threads in self.plan.threads]
        missing = missing_packages(target.kind)
        if missing:
            for entry in entries:
                entry.status, entry.reason = "skipped", f"not installed: {', '.join(missing)}"
            self.say(f"{target.label}: {entries[0].reason}")
            self._store()
            return
        for entry in entries:
            entry.versions = {name: version_of(name) or "" for name in target.kind.packages}
        whole = target.folder.with_name(target.folder.name + ".whole")
        if target.engine != BUNDLE and not whole.exists() and entries[0].status == "measured":
            self.say(f"{target.label}: converting")
            shutil.rmtree(target.folder, ignore_errors=True)
            target.folder.mkdir(parents=True)
            done = self._work(self._job(target, "convert"))
            for entry in entries:
                if not self._failed(entry, done):
                    entry.conversion = done.memory
            if entries[0].status == "measured":
                whole.touch()
        if entries[0].status == "measured":
            for entry in entries:
                entry.disk_bytes = self._disk(target)
        self._store()

    def _round(self, target: Target, threads: int, number: int) -> None:
        entry = self._entry(target, threads)
        if entry.status != "measured" or entry.rounds > number:
            return
        self.say(f"round {number + 1} of {self.plan.rounds}: {target.label}, {threads} threads")
        plan = self.plan
        job = self._job(
            target,
            "speed",
            threads=threads,
            load_name="load-first" if number == 0 else "load",
            prefills=list(plan.prefills),
            depths=list(plan.depths),
            samples=plan.samples,
            turn=plan.turn,
            usual=median(self.results.bandwidth[threads]) if plan.steady else None,
        )
        if number == 0:
            forget_pages(self._weights(target))
        done = self._work(job)
        if not self._failed(entry, done):
            for line in self._lines:
                self._keep(entry, line)
            entry.rounds += 1
            entry.disk_bytes = self._disk(target)  # with what the first load has written
        self._store()

    def _memory(self, target: Target, threads: int, context: int) -> None:
        entry = self._entry(target, threads)
        if entry.status != "measured" or context in entry.memory:
            return
        self.say(f"memory at {context} tokens: {target.label}, {threads} threads")
        job = self._job(target, "memory", threads=threads, context=context)
        done = self._work(job)
        if not self._failed(entry, done):
            entry.memory[context] = _thinned(done.memory)
        self._store()

    def _job(self, target: Target, work: Work, **more: Any) -> Job:
        plan = self.plan
        return Job(
            work=work,
            engine=target.engine,
            kv_cache=target.kv_cache,
            checkpoint=str(plan.checkpoint or target.folder),
            folder=str(target.folder),
            new_tokens=plan.new_tokens,
            vocab_size=plan.vocab_size,
            seed=plan.seed,
            **more,
        )

    def _work(self, job: Job) -> Watched:
        self._lines = []
        command = [sys.executable, "-m", "issun.benchmarks.worker"]
        command.append(msgspec.json.encode(job).decode())
        return watch(
            command,
            on_line=self._take,
            keep_moments=job.work == "memory",
            interval=_LOOKS[job.work],
        )

    def _take(self, line: str) -> str | None:
        content: dict[str, object] = json.loads(line)
        self._lines.append(content)
        mark = content.get("mark")
        return str(mark) if mark else None

    @staticmethod
    def _keep(entry: EngineResult, line: dict[str, object]) -> None:
        if "test" in line:
            seconds: list[float] = line["seconds"]  # type: ignore[assignment]
            entry.samples.setdefault(str(line["test"]), []).extend(seconds)
        elif "unsteady" in line:
            entry.unsteady += cast("int", line["unsteady"])
        elif "about" in line:
            about: dict[str, object] = line["about"]  # type: ignore[assignment]
            for name, value in about.items():
                setattr(entry, name, value)

    def _failed(self, entry: EngineResult, done: Watched) -> bool:
        if done.exit_code == 0:
            return False
        if done.exit_code < 0:
            entry.status = "crashed"
            entry.reason = f"killed by {signal.Signals(-done.exit_code).name}"
        else:
            entry.status = "failed"
            entry.reason = _last_line(done.complaint) or f"exit code {done.exit_code}"
        self.say(f"{entry.label}: {entry.status}: {entry.reason}")
        return True

    def _weights(self, target: Target) -> list[Path]:
        return target.kind(self.plan.checkpoint or target.folder, target.folder).weights()

    def _disk(self, target: Target) -> int:
        return sum(path.stat().st_size for path in self._weights(target))

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


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _thinned(memory: Memory, most: int = 400) -> Memory:
    """The same with at most so many moments, which is as many as a plot can show."""
    step = -(-len(memory.moments) // most) or 1
    return msgspec.structs.replace(memory, moments=memory.moments[::step])
