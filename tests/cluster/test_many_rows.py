"""Neither input nor output is held in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import linux

ROOT = Path(__file__).parents[2]


def peak(rows: int, folder: Path) -> int:
    """The driver's peak memory in bytes."""
    command = [sys.executable, "-m", "tests.cluster.many_rows", str(rows), str(folder)]
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


@pytest.mark.slow
@linux
def test_a_row_takes_few_bytes_of_the_driver(tmp_path: Path) -> None:
    """A row of input and output has 200 bytes here; its offset and the hash of its id have 16."""
    few, many = 20_000, 220_000
    assert (peak(many, tmp_path) - peak(few, tmp_path)) / (many - few) < 40


@linux
@pytest.mark.slow
def test_ten_million_rows_take_less_than_500_mb(tmp_path: Path) -> None:
    assert peak(10_000_000, tmp_path) < 500e6
