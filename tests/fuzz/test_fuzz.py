"""Damaged and hostile files: issun either reads them or refuses them in one line.

`ISSUN_TEST_MUTATIONS` of each kind are tried for each of `ISSUN_TEST_SEEDS` seeds; `make fuzz` asks
for many. A finding is tried again with `python -m tests.fuzz.child`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.fuzz.harness import fuzz
from tests.fuzz.targets import TARGETS, prepare
from tests.needs import posix

MUTATIONS = int(os.environ.get("ISSUN_TEST_MUTATIONS", "50"))
SEEDS = int(os.environ.get("ISSUN_TEST_SEEDS", "1"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, spiece: Path) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "whole"
    folder.mkdir()
    prepare(folder, spiece)
    return folder


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(SEEDS))
@posix
def test_mutations_are_read_or_refused(whole: Path, tmp_path: Path, target: str, seed: int) -> None:
    folder = shutil.copytree(whole, tmp_path / "folder")
    report = fuzz(target, folder, seed=seed, mutations=MUTATIONS)
    print(f"{target}: {dict(report.counts)}")
    assert not report.faults, "\n".join(f"{n}: {what}" for n, what in report.faults.items())
    assert report.counts.total() == MUTATIONS
    assert report.counts["fine"]  # some pass all checks, …
    assert report.counts["refused"] or target == "keys and values"  # … some do not
