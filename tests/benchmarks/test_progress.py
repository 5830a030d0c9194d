"""The estimated time of a run, by a clock of the test."""

from __future__ import annotations

from issun.benchmarks.progress import Progress, clock_time


def test_the_time_is_estimated_from_the_work_that_is_done() -> None:
    """10 s of preparing, then a quarter of the work in 30 s: 130 s in all."""
    now = [0.0]
    progress = Progress(lambda: now[0])
    now[0] = 10.0
    progress.plan(400)
    assert progress.remaining() is None
    assert str(progress) == "estimating the time"
    now[0] = 40.0
    progress.add(100)
    assert progress.remaining() == 90
    assert str(progress) == "about 2:10 in all, 1:30 left"
    now[0] = 50.0  # within the next step
    assert str(progress) == "about 2:10 in all, 1:20 left"
    now[0] = 140.0  # it takes longer than was thought
    assert progress.remaining() == 0
    progress.add(300)
    assert str(progress) == "about 2:20 in all, 0:00 left"


def test_times_are_in_minutes_and_seconds() -> None:
    assert [clock_time(seconds) for seconds in (0, 59.6, 61, 3600)] == [
        *("0:00", "1:00", "1:01", "60:00")
    ]
