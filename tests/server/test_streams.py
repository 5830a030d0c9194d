"""The benchmarks of one stream or prompt against many, on the embedded model."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from issun.benchmarks import streams, together
from issun.benchmarks.errors import BenchError
from issun.runtime.model import bundle_folder


@pytest.mark.parametrize(("module", "many"), [(streams, "streams"), (together, "prompts")])
def test_it_prints_each_round_and_the_median(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: Any, many: str
) -> None:
    options = [f"--{many}", "3", "--tokens", "5", "--rounds", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["name", str(bundle_folder(None)), *options])
    module.main()
    *lines, last = capsys.readouterr().out.splitlines()
    figures = rf"one ([\d.]+) tok/s, 3 {many} ([\d.]+) tok/s, ([\d.]+) times"
    assert [line.split(":")[0] for line in lines] == ["round 1", "round 2", "median"]
    assert re.fullmatch(r"range of the rounds: [\d.]+ to [\d.]+ times as fast", last)
    for line in lines:
        found = re.search(figures, line)
        assert found, line
        assert all(float(figure) > 0 for figure in found.groups())


def test_an_answer_has_as_many_tokens_as_it_is_asked_for() -> None:
    with streams.served(str(bundle_folder(None)), ["--threads", "1"]) as netloc:
        assert streams.answer(netloc, 1, 7) == 7


def test_a_server_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(BenchError, match="missing"),
        streams.served("/missing", []),
    ):
        pass


def test_a_server_that_has_more_to_say_first_is_waited_for() -> None:
    said = ["Packing the weights for this CPU …\n", "Serving m at http://127.0.0.1:8001 (Ctrl-C)\n"]
    assert streams._netloc(said) == "127.0.0.1:8001"
