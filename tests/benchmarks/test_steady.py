"""Samples count while the machine is steady, and are taken anew otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks import steady
from issun.benchmarks.engines.base import Engine
from issun.benchmarks.worker import Job, measure_speed


def samples_at(speeds: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], int]:
    """What is kept of the samples 0, 1, … while the probe finds `speeds`, the last for ever."""
    found = itertools.chain(speeds, itertools.repeat(speeds[-1]))
    monkeypatch.setattr(steady, "read_bandwidth", lambda threads, **options: [next(found)])
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    counted = itertools.count()
    take = steady.Steady(threads=1, usual=1.0)
    return take(lambda: [float(next(counted))]), take.missed


@pytest.mark.parametrize(
    ("speeds", "kept", "missed"),
    [
        ([1.0, 0.86], 0, 0),
        # Before (twice: it waits) and behind the first; before and behind the second.
        ([0.7, 0.9, 1.3, 1.1, 0.9], 1, 0),
        ([1.0, 0.7, 1.0, 1.3, 1.0, 1.0], 2, 0),
        ([0.5], 4, 1),
    ],
)
def test_what_ran_at_another_speed_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, speeds: list[float], kept: int, missed: int
) -> None:
    assert samples_at(speeds, monkeypatch) == ([kept], missed)


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        # The machine begins at 5 and is seldom there: 3 is its usual speed.
        ([[5.0, 5.0, 5.0], [3.0, 5.0, 3.0], [3.0, 3.3, 2.8], [3.0, 3.0, 3.0]], [3.0, 3.3, 2.8]),
        ([[5.0, 3.0, 3.0]], [5.0, 3.0, 3.0]),  # and never all of it again
    ],
)
def test_a_steady_run_starts_at_the_speed_that_is_most_common(
    monkeypatch: pytest.MonkeyPatch, measured: list[list[float]], found: list[float]
) -> None:
    glances = itertools.cycle([5.0, 3.0, 2.9, 3.1, 5.1, 3.2])
    whole = itertools.chain(measured, itertools.repeat(measured[-1]))

    def read(threads: int, **options: int) -> list[float]:
        return [next(glances)] if options else next(whole)

    monkeypatch.setattr(steady, "read_bandwidth", read)
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    assert steady.settled_bandwidth(1) == found


class Quick(Engine):
    """Answers without a model; counts how often it reads."""

    readings = 0
    settings = "none"

    def convert(self) -> None:
        """Nothing to convert."""

    def load(self, threads: int) -> None:
        """Nothing to load."""

    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        self.readings += 1
        return iter([None] * count)


def test_a_steady_worker_repeats_tests_and_tells_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 0 all is steady at once; behind the first prompt of 8 the machine reads otherwise."""
    speeds = itertools.chain([1.0] * 4, itertools.repeat(0.5))
    monkeypatch.setattr(steady, "read_bandwidth", lambda threads, **options: [next(speeds)])
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    told: list[dict[str, Any]] = []
    job = Job(work="speed", engine="", checkpoint="", folder="", vocab_size=100)
    job.prefills, job.depths, job.new_tokens, job.usual = [8], [0], 4, 1.0
    job.samples = 2
    engine = Quick(tmp_path, tmp_path)
    waits: list[str] = []
    measure_speed(
        engine, job, lambda **content: told.append(content), lambda test, **_: waits.append(test)
    )
    counts = [(line["test"], len(line["times"]) - 1) for line in told if "test" in line]
    decoded, cold, warm = ("decode-0", 4), ("cold-8", 1), ("prefill-8", 1)
    assert counts == [("load", 1), decoded, decoded, cold, warm, warm]
    assert waits == ["load", "warm-0", "warm-0", "cold-8", "warm-8", "warm-8"]
    assert engine.readings == 2 + 1 + 2 * 5
    assert told[-1] == {"unsteady": 2}
