"""`issun export --frontier`: the table, and what it claims about speeds."""

from __future__ import annotations

from typing import Any

import pytest

from issun import export
from issun.cli.export import run
from issun.export.frontier import Point

POINTS = [
    Point(
        budget=12_000_000,
        size=11_987_654,
        kl=0.00114,
        prefill=0.27,
        decode=1.56,
        precision="int4 for 9 linear layers",
    ),
    Point(budget=2 * 10**9, size=10**9, kl=0.0, prefill=0.18, decode=0.25, precision="float32"),
]


def test_the_table_of_a_frontier(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def points(source: str, sizes: list[int], *_: object, **options: Any) -> list[Point]:
        assert sizes == [12_000_000, 2 * 10**9]
        return POINTS

    monkeypatch.setattr(export, "frontier", points)
    run(source="checkpoint", frontier=True, sizes="12MB,2GB")
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "    budget        size  KL divergence  prefill  decode",
        "   12.0 MB     12.0 MB       0.001140   x 0.27  x 1.56  int4 for 9 linear layers",
        "2,000.0 MB  1,000.0 MB       0.000000   x 0.18  x 0.25  float32",
    ]
    assert shown.err.splitlines() == [
        "Speeds are estimates relative to plain int8, for ranking only: prefill by the times of "
        "linear layers on one Xeon with AMX, decode by bytes.",
    ]
