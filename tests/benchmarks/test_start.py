"""The output of two small measurements, without asserting times."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from issun.benchmarks import sampling, start
from issun.benchmarks.errors import BenchError
from issun.runtime import Model
from issun.runtime.demonstration import EMBEDDED


@pytest.mark.slow
def test_the_time_to_the_first_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["start", str(EMBEDDED), "--rounds", "2"])
    start.main()
    with Model.load() as model:
        tokens = len(model.prompt(start.QUESTION))
    reported = capsys.readouterr().out
    assert f"after a {tokens}-token prompt" in reported
    assert re.search(
        r"\d\.\d\d s after the start \(median of 2, \d\.\d\d to \d\.\d\d s\)$", reported
    )


def test_a_bundle_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"does not answer: .*no issun\.json"):
        start.prompt_tokens(str(tmp_path))
    with pytest.raises(BenchError, match="does not answer: no text"):
        start.seconds_to_first_word(str(tmp_path))


def test_the_time_of_sampling(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sampling", str(EMBEDDED), "--steps", "5"])
    sampling.main()
    shown = re.search(
        r"decode step ([\d.]+) ms, .* ([\d.]+) ms, ([\d.]+)% .*of 4\)$", capsys.readouterr().out
    )
    assert shown
    step, draw, share = map(float, shown.groups())
    assert share == pytest.approx(100 * draw / step, rel=0.05)


def test_sampling_is_measured_with_every_filter() -> None:
    """No sampling parameter has the value that disables it."""
    off = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 1}
    off |= {"repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
    off |= {"no_repeat_ngram_size": 0, "logit_bias": {}}
    assert all(getattr(sampling.ALL_FILTERS, name) != value for name, value in off.items())
    with Model.load() as model:
        stepping, drawing = sampling.measure(model, 3)
    assert len(stepping) == len(drawing) == 3
    assert min(stepping + drawing) > 0
