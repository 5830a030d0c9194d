"""The benchmark of one prompt against many, on the embedded model."""

from __future__ import annotations

import re
import sys

import pytest

from issun.benchmarks import together
from issun.runtime.demonstration import bundle_folder


def test_it_prints_each_round_and_the_median(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompts", "3", "--tokens", "5", "--rounds", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["name", str(bundle_folder(None)), *options])
    together.main()
    *lines, last = capsys.readouterr().out.splitlines()
    figures = r"one ([\d.]+) tok/s, 3 prompts ([\d.]+) tok/s, ([\d.]+) times"
    assert [line.split(":")[0] for line in lines] == ["round 1", "round 2", "median"]
    assert re.fullmatch(r"range of the rounds: [\d.]+ to [\d.]+ times as fast", last)
    for line in lines:
        found = re.search(figures, line)
        assert found, line
        assert all(float(figure) > 0 for figure in found.groups())
