"""The benchmark of one stream against many, on the embedded model."""

from __future__ import annotations

import re
import sys

import pytest

from issun.benchmarks import streams
from issun.benchmarks.errors import BenchError
from issun.runtime.model import bundle_folder


def test_it_prints_each_round_and_the_median(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--streams", "3", "--tokens", "5", "--rounds", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["streams", str(bundle_folder(None)), *options])
    streams.main()
    *rounds, last = capsys.readouterr().out.splitlines()
    figures = r"one ([\d.]+) tok/s, 3 streams ([\d.]+) tok/s, ([\d.]+) times"
    assert len(rounds) == 2
    for line in [*rounds, last]:
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
    said = ["Packing the weights for this CPU …\n", "m answers at http://127.0.0.1:8001 (Ctrl-C)\n"]
    assert streams._netloc(said) == "127.0.0.1:8001"
