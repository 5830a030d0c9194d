"""Runs engines in rounds, one process an engine and round, and keeps all that was measured.

As many engines as memory holds take turns. Every piece of work is stored when it is done, so that a
run that was stopped can go on. An engine that fails or crashes is reported as such, and the others
go on.
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
from issun.benchmarks.machine import forget_pages, free_memory, write_all
from issun.benchmarks.measured import EngineResult, Memory, Results, write_results
from issun.benchmarks.memory import INTERVAL, Watched, watch
from issun.benchmarks.plan import Plan, Target, share_memory
from issun.benchmarks.steady import settled_bandwidth
from issun.benchmarks.turns import Player, take_turns
from issun.benchmarks.worker import Job, Work

Say = Callable[[str], object]

_LOOK = 0.1  # seconds between two looks at the memory of a conversion, which is timed
_SPARE = 2_000_000_000  # bytes of memory that are left to the system


@dataclass(slots=True)
class Runner:
    """One run of a plan, stored in `output` as it grows."""

    plan: Plan
    results: Results
    output: Path
    say: Say

    def run(self) -> Results:
        """Do all that `results` does not have yet."""
        self._bandwidth()
        for target in self.plan.targets:
            self._convert(target)
        for threads in self.plan.threads:
            for target in self.plan.targets:
                self._load_cold(target, threads)
        write_all()
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
        """Who takes turns with whom, in every round in another order.

        Engines that wait for the machine's usual speed go alone.
        """
        waiting = [t for t in self.plan.targets if self._is_due(self._entry(t, threads), number)]
        order = np.random.default_rng(number).permutation(len(waiting))
        room = 0 if self.plan.steady else free_memory() - _SPARE
        ordered = [waiting[i] for i in order]
        return share_memory(ordered, self.plan.checkpoint, room)

    @staticmethod
    def _is_due(entry: EngineResult, number: int) -> bool:
        return entry.status == "measured" and entry.rounds <= number

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
                if not self._failed(entry, done.exit_code, done.complaint):
                    entry.conversion = done.memory
            if entries[0].status == "measured":
                whole.touch()
        if entries[0].status == "measured":
            for entry in entries:
                entry.disk_bytes = self._disk(target)
        self._store()

    def _load_cold(self, target: Target, threads: int) -> None:
        """Before all rounds: what it pushes out of memory and writes would slow down others."""
        entry = self._entry(target, threads)
        if entry.status != "measured" or "load-first" in entry.samples:
            return
        self.say(f"first load: {target.label}, {threads} threads")
        forget_pages(target.made_from(self.plan.checkpoint).weights())
        self._play([(entry, self._job(target, "load", threads=threads))])
        entry.disk_bytes = self._disk(target)  # with what this has written
        self._store()

    def _round(self, group: list[Target], threads: int, number: int) -> None:
        names = ", ".join(target.label for target in group)
        self.say(f"round {number + 1} of {self.plan.rounds}: {names}, {threads} threads")
        self._play([(self._entry(t, threads), self._speed_job(t, threads)) for t in group])

    def _play(self, work: list[tuple[EngineResult, Job]]) -> None:
        players: list[Player] = []
        window = self.results.next_window()
        try:
            for _, job in work:
                players.append(Player(_command(job)))
            take_turns(players, lambda test: self.say(f"  {test}"))
        finally:  # what was measured before a stop is kept too
            for (entry, job), player in zip(work, players, strict=False):
                player.kill()
                self._take(entry, job, player, window)
            self.results.settle()
            self._store()

    def _take(self, entry: EngineResult, job: Job, player: Player, window: int) -> None:
        """Keep what a player has measured, unless it failed."""
        if player.exit_code and self._failed(entry, player.exit_code, player.complaint):
            return
        for line in player.lines:
            self._keep(entry, line, window)
        entry.rounds += job.work == "speed" and player.exit_code == 0

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
        self.say(f"memory at {context} tokens: {target.label}, {threads} threads")
        job = self._job(target, "memory", threads=threads, context=context)
        done = self._work(job)
        if not self._failed(entry, done.exit_code, done.complaint):
            entry.memory[context] = _thinned(done.memory)
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

    def _work(self, job: Job) -> Watched:
        return watch(
            _command(job),
            on_line=lambda line: json.loads(line).get("mark"),
            keep_moments=job.work == "memory",
            interval=INTERVAL if job.work == "memory" else _LOOK,
        )

    def _keep(self, entry: EngineResult, line: dict[str, Any], window: int) -> None:
        if "test" in line:
            test, seconds = line["test"], line["seconds"]
            entry.samples.setdefault(test, []).extend(seconds)
            if self.results.turn and test.rpartition("-")[2].isdigit():  # what engines share
                entry.windows.setdefault(test, []).extend([window] * len(seconds))
        elif "unsteady" in line:
            entry.unsteady += line["unsteady"]
        elif "about" in line:
            for name, value in line["about"].items():
                setattr(entry, name, value)

    def _failed(self, entry: EngineResult, exit_code: int, complaint: str) -> bool:
        if exit_code == 0:
            return False
        if exit_code < 0:
            entry.status = "crashed"
            entry.reason = f"killed by {signal.Signals(-exit_code).name}"
        else:
            entry.status = "failed"
            entry.reason = _last_line(complaint) or f"exit code {exit_code}"
        self.say(f"{entry.label}: {entry.status}: {entry.reason}")
        return True

    def _disk(self, target: Target) -> int:
        return sum(path.stat().st_size for path in target.made_from(self.plan.checkpoint).weights())

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


def _command(job: Job) -> list[str]:
    job_text = msgspec.json.encode(job).decode()
    return [sys.executable, "-P", "-m", "issun.benchmarks.worker", job_text]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _thinned(memory: Memory, most: int = 400) -> Memory:
    """The same with at most so many moments, which is as many as a plot can show."""
    step = -(-len(memory.moments) // most) or 1
    return msgspec.structs.replace(memory, moments=memory.moments[::step])
