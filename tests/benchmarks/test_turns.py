"""Workers in turns: what they measure is their own time, and none is left behind."""

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

from issun.benchmarks import plan, turns, worker
from issun.benchmarks.engines.registry import BUNDLE
from issun.benchmarks.turns import Player, running_seconds, take_turns
from issun.benchmarks.worker import Job
from issun.runtime.model import EMBEDDED

# Waits before each test like a worker; counts in a loop for 0.4 s of its own time in it, and tells
# of two steps at its end.
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


def players(*tests: str) -> list[Player]:
    return [Player([sys.executable, "-c", _WORKER, named]) for named in tests]


@pytest.mark.parametrize(
    ("times", "pauses", "seconds"),
    [
        ([0, 1, 3], [], [1, 2]),
        ([0, 10, 20], [(2, 5), (9, 11)], [6, 9]),  # the second pause lies in both
        ([5, 6], [(1, 2), (8, 9)], [1]),  # before and behind
        ([1, 4], [(0, 2), (3, 9)], [1]),  # it begins and ends in pauses
        ([0, 4, 4], [(1, 3)], [2, 0]),
        ([3], [(1, 3)], []),
    ],
)
def test_the_time_of_pauses_does_not_count(
    times: list[float], pauses: list[tuple[float, float]], seconds: list[float]
) -> None:
    assert running_seconds(times, pauses) == seconds


@given(
    st.lists(st.integers(0, 100), min_size=2, max_size=8).map(sorted),
    st.lists(st.integers(0, 100), max_size=8, unique=True).map(sorted),
)
def test_running_time_is_what_each_moment_outside_the_pauses_adds(
    times: list[int], edges: list[int]
) -> None:
    pauses = list(zip(edges[::2], edges[1::2], strict=False))
    running = [not any(since <= moment < until for since, until in pauses) for moment in range(100)]
    expected = [sum(running[a:b]) for a, b in itertools.pairwise(times)]
    assert running_seconds(times, pauses) == expected


def test_in_turns_each_measures_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three loops of 0.4 s share a test: it lasts long, and each one's part of it does not."""
    monkeypatch.setattr(turns, "TURN", 0.05)
    said: list[str] = []
    three = players(*["load a b"] * 3)
    try:
        take_turns(three, said.append)
    finally:
        for player in three:
            player.kill()
    assert said == ["load", "a", "b"]
    for player in three:
        assert player.exit_code == 0
        assert [line["test"] for line in player.lines] == ["load", "a", "b"]
    shared = [line for player in three for line in player.lines[1:]]
    lasted, own = (
        sum(times) for times in zip(*((x["wall"], x["seconds"][0]) for x in shared), strict=True)
    )
    # Each begins and ends within the others' turns, so that two of three parts of it are theirs.
    assert lasted > 2 * own
    alone = [line for player in three for line in player.lines[:1]]
    assert all(line["seconds"] == [line["wall"]] for line in alone)


class Paced:
    """Does its test in steps, so many a turn, without a process."""

    alone, waits, exit_code = False, "a", None

    def __init__(self, name: str, pace: int, seen: list[tuple[str, int]]) -> None:
        self.name, self.pace, self.seen = name, pace, seen
        self.steps, self.longest = 0, 12

    def begin(self) -> None:
        self.steps = 0

    def works(self, seconds: float | None = None) -> bool:
        self.steps += self.pace if seconds else self.longest
        self.seen.append((self.name, min(self.steps, self.longest)))
        return self.steps >= self.longest

    def stop(self) -> None: ...

    def go_on(self) -> None: ...


def test_a_slow_one_gets_more_turns_than_a_fast_one() -> None:
    """They are done together: no one is ahead by more than one of its turns."""
    seen: list[tuple[str, int]] = []
    paced: list[Any] = [Paced("slow", 1, seen), Paced("fast", 4, seen), Paced("middle", 2, seen)]
    turns._share(paced)
    order = [name for name, _ in seen]
    assert order[:3] == ["slow", "fast", "middle"]  # as they stand while they are equal
    # The last one does what is left, two steps, in one go: it has no one to wait for.
    assert [order.count(name) for name in ("slow", "fast", "middle")] == [11, 3, 6]
    steps = dict.fromkeys(order, 0)
    for name, done in seen:
        assert steps[name] == min(steps.values())
        steps[name] = done


def test_a_worker_tells_of_its_steps() -> None:
    job = Job(work="speed", engine=BUNDLE, checkpoint="", folder=str(EMBEDDED), vocab_size=99)
    job.depths, job.new_tokens = [1], 50
    code = "from issun.benchmarks import worker; worker._TELL = 0.0; worker.main()"
    player = Player([sys.executable, "-c", code, msgspec.json.encode(job).decode()])
    try:
        take_turns([player], lambda test: None)
    finally:
        player.kill()
    assert player.exit_code == 0
    assert player.steps == 51
    assert [line["test"] for line in player.lines if "test" in line] == ["load", "decode-1"]


def test_a_test_begins_with_no_step_done() -> None:
    (player,) = players("a b")
    seen = []
    try:
        for _ in "ab":
            player.begin()
            seen.append(player.steps)
            player.works()
            seen.append(player.steps)
    finally:
        player.kill()
    assert seen == [0, 2, 0, 2]


def test_steps_are_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 0.00 s it begins; of tokens at 0.04, 0.08, … it tells of every second one."""
    clock = (0.04 * tick for tick in itertools.count())
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    told: list[int] = []
    times = worker.times_of_tokens(iter([None] * 10), told.append)
    assert times == pytest.approx([0.04 * tick for tick in range(11)])
    assert told == [2, 4, 6, 8, 10]


def test_one_that_ends_leaves_the_turns_to_the_others() -> None:
    both = players("a dies c", "a b c")
    try:
        take_turns(both, lambda test: None)
    finally:
        for player in both:
            player.kill()
    assert [player.exit_code for player in both] == [1, 0]
    assert both[0].complaint.splitlines()[-1] == "no more"
    assert [[line["test"] for line in player.lines] for player in both] == [["a"], ["a", "b", "c"]]


def test_a_stopped_run_leaves_no_worker() -> None:
    both = players("a", "a")
    both[0].stop()
    for player in both:
        player.kill()
    assert not any(psutil.pid_exists(player._process.pid) for player in both)


def still_there(worker: psutil.Process) -> bool:
    for _ in range(50):
        if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends them on Linux alone")
@pytest.mark.parametrize("turn", ["player.begin()", "player.stop()"])
def test_workers_end_with_a_harness_that_is_killed(turn: str) -> None:
    """One that has its turn, and one that is stopped and would hold its memory for ever."""
    job = Job(work="speed", engine=BUNDLE, checkpoint="", folder=str(EMBEDDED), vocab_size=99)
    code = (
        "import sys, time; from issun.benchmarks.turns import Player;"
        "player = Player([sys.executable, '-m', 'issun.benchmarks.worker', sys.argv[1]]);"
        f"{turn}; print(player._process.pid, flush=True); time.sleep(60)"
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

    def made_from(self, checkpoint: Any) -> SimpleNamespace:
        return SimpleNamespace(weight_bytes=lambda: self.need)


@pytest.mark.parametrize(
    ("needs", "room", "groups"),
    [
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([6, 3, 5, 1], 9, [[0, 1], [2, 3]]),
        ([9, 1, 9], 8, [[0], [1], [2]]),  # what does not fit goes alone
        ([2, 2], 0, [[0], [1]]),
    ],
)
def test_as_many_are_alive_as_memory_holds(
    monkeypatch: pytest.MonkeyPatch, needs: list[int], room: int, groups: list[list[int]]
) -> None:
    monkeypatch.setattr(plan, "_MORE", 1)
    monkeypatch.setattr(plan, "_REST", 0)
    targets: list[Any] = [Sized(name=i, need=need) for i, need in enumerate(needs)]
    found = plan.share_memory(targets, None, room)
    assert [[target.name for target in group] for group in found] == groups
