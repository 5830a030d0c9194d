"""Interleaved workers measure only their own time, and none outlives the harness."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks import interleave, plan, worker
from issun.benchmarks.engines.registry import BUNDLE
from issun.benchmarks.interleave import InterleavedWorker, run_interleaved, running_seconds
from issun.benchmarks.worker import Job
from issun.runtime.demonstration import EMBEDDED

# Waits before each test like a worker, loops for 0.4 s of CPU time in it, and reports two steps at
# the end.
_WORKER = """
import json, sys, time
def wait(test, alone=False):
    print(json.dumps({"waits": test, "alone": alone}), flush=True)
    if not sys.stdin.readline():
        raise SystemExit("left alone")
def work():
    started, used = time.perf_counter(), time.process_time() + 0.4
    while time.process_time() < used: pass
    return [started, time.perf_counter()]
for test in sys.argv[1].split():
    wait(test, alone=test == "load")
    if test == "dies": sys.exit("no more")
    times = work()
    print(json.dumps({"steps": 2}), flush=True)
    print(json.dumps({"test": test, "times": times, "wall": times[1] - times[0]}), flush=True)
"""


def start_workers(*tests: str) -> list[InterleavedWorker]:
    return [InterleavedWorker([sys.executable, "-c", _WORKER, named]) for named in tests]


@pytest.mark.parametrize(
    ("times", "pauses", "seconds"),
    [
        ([0, 1, 3], [], [1, 2]),
        ([0, 10, 20], [(2, 5), (9, 11)], [6, 9]),  # the second pause is in both
        ([5, 6], [(1, 2), (8, 9)], [1]),  # before and after
        ([1, 4], [(0, 2), (3, 9)], [1]),  # it starts and ends in pauses
        ([0, 4, 4], [(1, 3)], [2, 0]),
        ([3], [(1, 3)], []),
    ],
)
def test_pauses_do_not_count(
    times: list[float], pauses: list[tuple[float, float]], seconds: list[float]
) -> None:
    assert running_seconds(times, pauses) == seconds


@given(
    st.lists(st.integers(0, 100), min_size=2, max_size=8).map(sorted),
    st.lists(st.integers(0, 100), max_size=8, unique=True).map(sorted),
)
def test_running_time_is_the_time_outside_pauses(times: list[int], edges: list[int]) -> None:
    pauses = list(zip(edges[::2], edges[1::2], strict=False))
    running = [not any(since <= moment < until for since, until in pauses) for moment in range(100)]
    expected = [sum(running[a:b]) for a, b in itertools.pairwise(times)]
    assert running_seconds(times, pauses) == expected


@pytest.mark.slow
def test_interleaved_workers_measure_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers loop for 0.4 s each: the wall time is long, but the measured times are not."""
    monkeypatch.setattr(interleave, "TIME_SLICE", 0.05)
    reported: list[str] = []
    three = start_workers(*["load a b"] * 3)
    try:
        run_interleaved(three, reported.append)
    finally:
        for process in three:
            process.kill()
    assert reported == ["load", "a", "b"]
    for process in three:
        assert process.exit_code == 0
        assert [line["test"] for line in process.lines] == ["load", "a", "b"]
    shared = [line for process in three for line in process.lines[1:]]
    lasted, own = (
        sum(times) for times in zip(*((x["wall"], x["seconds"][0]) for x in shared), strict=True)
    )
    # Each test spans the time slices of the two other workers, two thirds of its wall time.
    assert lasted > 2 * own
    alone = [line for process in three for line in process.lines[:1]]
    assert all(line["seconds"] == [line["wall"]] for line in alone)


class Paced:
    """A worker without a process that does `pace` steps per time slice."""

    alone, waits, exit_code = False, "a", None

    def __init__(self, name: str, pace: int, seen: list[tuple[str, int]]) -> None:
        self.name, self.pace, self.seen = name, pace, seen
        self.steps, self.longest = 0, 12

    def begin(self) -> None:
        self.steps = 0

    def run_for(self, seconds: float | None = None) -> bool:
        self.steps += self.pace if seconds else self.longest
        self.seen.append((self.name, min(self.steps, self.longest)))
        return self.steps >= self.longest

    def suspend(self) -> None: ...

    def resume(self) -> None: ...


def test_a_slow_worker_gets_more_time_slices_than_a_fast_one() -> None:
    """They finish together: none is ahead by more than one of its time slices."""
    seen: list[tuple[str, int]] = []
    paced: list[Any] = [Paced("slow", 1, seen), Paced("fast", 4, seen), Paced("middle", 2, seen)]
    interleave._interleave(paced)
    order = [name for name, _ in seen]
    assert order[:3] == ["slow", "fast", "middle"]  # in the given order while their steps are equal
    # The last one does its two remaining steps at once, as no other worker is left.
    assert [order.count(name) for name in ("slow", "fast", "middle")] == [11, 3, 6]
    steps = dict.fromkeys(order, 0)
    for name, done in seen:
        assert steps[name] == min(steps.values())
        steps[name] = done


def test_a_worker_reports_its_steps() -> None:
    job = Job(work="speed", engine=BUNDLE, checkpoint="", folder=str(EMBEDDED), vocab_size=99)
    job.depths, job.new_tokens = [1], 50
    code = "from issun.benchmarks import worker; worker._REPORT_INTERVAL = 0.0; worker.main()"
    process = InterleavedWorker([sys.executable, "-c", code, msgspec.json.encode(job).decode()])
    try:
        run_interleaved([process], lambda test: None)
    finally:
        process.kill()
    assert process.exit_code == 0
    assert process.steps == 51
    assert [line["test"] for line in process.lines if "test" in line] == ["load", "decode-1"]


def test_a_test_starts_with_no_steps() -> None:
    (process,) = start_workers("a b")
    seen = []
    try:
        for _ in "ab":
            process.begin()
            seen.append(process.steps)
            process.run_for()
            seen.append(process.steps)
    finally:
        process.kill()
    assert seen == [0, 2, 0, 2]


def test_steps_are_reported_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts at 0.00 s, and of the tokens at 0.04, 0.08, … it reports every second one."""
    clock = (0.04 * tick for tick in itertools.count())
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    reported: list[int] = []
    times = worker.token_times(iter([None] * 10), reported.append)
    assert times == pytest.approx([0.04 * tick for tick in range(11)])
    assert reported == [2, 4, 6, 8, 10]


def test_the_others_continue_when_a_worker_ends() -> None:
    both = start_workers("a dies c", "a b c")
    try:
        run_interleaved(both, lambda test: None)
    finally:
        for process in both:
            process.kill()
    assert [process.exit_code for process in both] == [1, 0]
    assert both[0].stderr.splitlines()[-1] == "no more"
    assert [[line["test"] for line in process.lines] for process in both] == [
        ["a"],
        ["a", "b", "c"],
    ]


def test_an_interrupted_run_leaves_no_worker() -> None:
    both = start_workers("a", "a")
    both[0].suspend()
    for process in both:
        process.kill()
    assert not any(psutil.pid_exists(process._process.pid) for process in both)


def still_there(worker: psutil.Process) -> bool:
    for _ in range(50):
        if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them on Linux alone")
@pytest.mark.parametrize("turn", ["process.begin()", "process.suspend()"])
def test_workers_end_when_the_harness_is_killed(turn: str) -> None:
    """A running worker, and a suspended one, which would keep its memory forever."""
    job = Job(work="speed", engine=BUNDLE, checkpoint="", folder=str(EMBEDDED), vocab_size=99)
    code = (
        "import sys, time; from issun.benchmarks.interleave import InterleavedWorker;"
        "command = [sys.executable, '-m', 'issun.benchmarks.worker', sys.argv[1]];"
        "process = InterleavedWorker(command);"
        f"{turn}; print(process._process.pid, flush=True); time.sleep(60)"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", code, msgspec.json.encode(job).decode()],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with harness:
        assert harness.stdout is not None
        worker = psutil.Process(int(harness.stdout.readline()))
        harness.kill()
    assert not still_there(worker)


class Sized(SimpleNamespace):
    """A target whose engine has `need` bytes of weights."""

    def create_engine(self, checkpoint: Any) -> SimpleNamespace:
        return SimpleNamespace(weight_bytes=lambda: self.need)


@pytest.mark.parametrize(
    ("needs", "room", "groups"),
    [
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([6, 3, 5, 1], 9, [[0, 1], [2, 3]]),
        ([9, 1, 9], 8, [[0], [1], [2]]),  # engines that do not fit are alone
        ([2, 2], 0, [[0], [1]]),
    ],
)
def test_groups_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, needs: list[int], room: int, groups: list[list[int]]
) -> None:
    monkeypatch.setattr(plan, "_WEIGHT_FACTOR", 1)
    monkeypatch.setattr(plan, "_OVERHEAD_BYTES", 0)
    targets: list[Any] = [Sized(name=i, need=need) for i, need in enumerate(needs)]
    found = plan.group_by_memory(targets, None, room)
    assert [[target.name for target in group] for group in found] == groups
