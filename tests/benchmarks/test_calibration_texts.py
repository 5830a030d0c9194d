"""A fit on each text is measured on every text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from issun.benchmarks.calibration_texts import SHIPPED, divergences


@pytest.mark.slow
def test_every_fit_is_measured_on_every_text(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "own.txt").write_text("春は花、夏は海。" * 40, encoding="utf-8")
    measure = {"news": "県は十二日、新しい橋を開通させた。", "code": "for i in range(3): print(i)"}
    found = divergences(checkpoint("head-17"), [tmp_path / "own.txt"], measure, tmp_path)
    assert found.keys() == {SHIPPED, "own.txt"}
    assert all(row.keys() == measure.keys() for row in found.values())
    assert all(0 < kl < 1 for row in found.values() for kl in row.values())
    assert found[SHIPPED] != found["own.txt"]
