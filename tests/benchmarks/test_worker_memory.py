"""The memory of several workers against that of one."""

from __future__ import annotations

import re
import sys

import pytest

from issun.benchmarks import worker_memory
from issun.runtime.demonstration import EMBEDDED
from tests.needs import linux


@pytest.mark.slow
@linux
def test_two_workers_are_compared_with_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["worker_memory", str(EMBEDDED), "--tokens", "2"])
    worker_memory.main()
    one, two, ratio = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"1 workers: \d+ MB, of which \d+ MB are unshared \(.*\)", one)
    assert two.startswith("2 workers: ")
    # Nothing of the demonstration model is packed, so each has its own weights.
    assert 1.2 < float(re.findall(r"[\d.]+", ratio)[1]) < 2.1
