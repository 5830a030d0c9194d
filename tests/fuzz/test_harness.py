"""Crashes and hangs are detected, attributed to their mutation, and do not end the run."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import harness
from tests.fuzz.probe import ACTS, FILE, act_of
from tests.needs import posix

SEED, MUTATIONS = 9, 12
SIGNS = {
    "crash": "the process ended with -11",
    "exit": "the process ended with 0",
    "hang": "no end after 8 s",
    "raise": "KeyError: 'key'",
    "print": "printed: noise",
}


@posix
def test_all_misbehaviour_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PATIENCE", 8.0)
    (tmp_path / FILE).write_text("nothing")
    report = harness.fuzz("probe", tmp_path, seed=SEED, mutations=MUTATIONS)
    acts = [act_of(b"", Random(f"probe {SEED} {n}")).decode() for n in range(MUTATIONS)]
    assert set(acts) == set(ACTS)
    for number, act in enumerate(acts):
        assert SIGNS.get(act, "") in report.faults.get(number, "")
    assert report.faults.keys() == {n for n, act in enumerate(acts) if act in SIGNS}
    assert report.counts["fine"] == acts.count("nothing")
    assert report.counts["refused"] == acts.count("refuse")
    assert (tmp_path / FILE).read_text() == "nothing"
