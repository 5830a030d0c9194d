"""Progress where stderr is no terminal: a line at regular intervals, also within a long step."""

from __future__ import annotations

import time

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


def test_short_work_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.Bars({"write": "writing"}) as report:
        report("write", 1, 1)
    assert capfd.readouterr().err == ""
