"""Progress where stderr is no terminal: a line at regular intervals, also within a long step."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from issun.cli import progress


def test_lines_are_printed_while_a_step_lasts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    monkeypatch.setenv("ISSUN_LANG", "en")
    with progress.Bars({"calibrate": "calibrating"}) as report:
        report("calibrate", 1, 4)
        time.sleep(0.3)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"calibrating: 25%"}


def test_lines_have_the_time_left_since_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    times = iter([100.0, 160.0])  # the stage begins with a quarter done, and has half after 60 s
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setenv("ISSUN_LANG", "en")
    lines = progress._Lines()
    lines.show("answering", 0.25, "")
    lines.show("answering", 0.5, "2 workers")
    waits = iter([False, True])
    monkeypatch.setattr(lines._done, "wait", lambda seconds: next(waits))
    lines._print()
    assert capfd.readouterr().err == "answering: 50%, 2:00 left, 2 workers\n"


def test_short_work_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.Bars({"write": "writing"}) as report:
        report("write", 1, 1)
    assert capfd.readouterr().err == ""
