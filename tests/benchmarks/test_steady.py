"""Samples are accepted while the read bandwidth is usual, and repeated otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.benchmarks import steady
from issun.benchmarks.engines.base import Engine
from issun.benchmarks.worker import Job, measure_speed


def samples_at(speeds: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], int]:
    """The accepted one of the samples 0, 1, … when probes return `speeds`, the last forever."""
    found = itertools.chain(speeds, itertools.repeat(speeds[-1]))
    monkeypatch.setattr(steady, "read_bandwidth", lambda threads, **options: [next(found)])
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    counted = itertools.count()
    take = steady.SteadySampler(threads=1, usual=1.0)
    return take(lambda: [float(next(counted))]), take.missed


@pytest.mark.parametrize(
    ("speeds", "kept", "missed"),
    [
        ([1.0, 0.86], 0, 0),
        # Probes before (two, as it waits) and after the first sample, before and after the second.
        ([0.7, 0.9, 1.3, 1.1, 0.9], 1, 0),
        ([1.0, 0.7, 1.0, 1.3, 1.0, 1.0], 2, 0),
        ([0.5], 4, 1),
    ],
)
def test_samples_at_another_bandwidth_are_repeated(
    monkeypatch: pytest.MonkeyPatch, speeds: list[float], kept: int, missed: int
) -> None:
    assert samples_at(speeds, monkeypatch) == ([kept], missed)


@pytest.mark.parametrize(
    ("measured", "found"),
    [
        # It starts at 5, which is rare: 3 is the usual bandwidth.
        ([[5.0, 5.0, 5.0], [3.0, 5.0, 3.0], [3.0, 3.3, 2.8], [3.0, 3.0, 3.0]], [3.0, 3.3, 2.8]),
        ([[5.0, 3.0, 3.0]], [5.0, 3.0, 3.0]),  # and it is never reached
    ],
)
def test_a_steady_run_starts_at_the_most_frequent_bandwidth(
    monkeypatch: pytest.MonkeyPatch, measured: list[list[float]], found: list[float]
) -> None:
    glances = itertools.cycle([5.0, 3.0, 2.9, 3.1, 5.1, 3.2])
    whole = itertools.chain(measured, itertools.repeat(measured[-1]))

    def read(threads: int, **options: int) -> list[float]:
        return [next(glances)] if options else next(whole)

    monkeypatch.setattr(steady, "read_bandwidth", read)
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    assert steady.steady_bandwidth(1) == found


class Quick(Engine):
    """An engine without a model that counts its calls."""

    readings = 0
    settings = "none"

    def convert(self) -> None:
        """Nothing to convert."""

    def load(self, threads: int) -> None:
        """Nothing to load."""

    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        self.readings += 1
        return iter([None] * count)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        raise NotImplementedError


def test_a_steady_worker_repeats_tests_and_reports_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At size 0 all probes are usual; after the first prompt of 8 the bandwidth changes."""
    speeds = itertools.chain([1.0] * 4, itertools.repeat(0.5))
    monkeypatch.setattr(steady, "read_bandwidth", lambda threads, **options: [next(speeds)])
    monkeypatch.setattr(steady.time, "sleep", lambda seconds: None)
    reported: list[dict[str, Any]] = []
    job = Job(work="speed", engine="", checkpoint="", folder="", vocab_size=100)
    job.prefills, job.depths, job.new_tokens, job.usual = [8], [0], 4, 1.0
    job.samples = 2
    engine = Quick(tmp_path, tmp_path)
    waits: list[str] = []
    measure_speed(
        engine,
        job,
        lambda **content: reported.append(content),
        lambda test, **_: waits.append(test),
    )
    counts = [(line["test"], len(line["times"]) - 1) for line in reported if "test" in line]
    decoded, cold, warm = ("decode-0", 4), ("cold-8", 1), ("prefill-8", 1)
    assert counts == [("load", 1), decoded, decoded, cold, warm, warm]
    assert waits == ["load", "warm-0", "warm-0", "cold-8", "warm-8", "warm-8"]
    assert engine.readings == 2 + 1 + 2 * 5
    assert reported[-1] == {"unsteady": 2}
