"""Stored comparisons with float32, and what engines are fitted to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.benchmarks.calibration import calibration_windows, input_mean_squares
from issun.benchmarks.distances import (
    Comparison,
    Distance,
    Point,
    Text,
    read_comparison,
    write_comparison,
)
from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import Machine
from issun.benchmarks.publish_distances import README_TEXTS, block, distances_table, plots
from issun.benchmarks.report import write_report
from issun.cli.peers import table
from issun.export.checkpoint import open_checkpoint
from tests.benchmarks.test_results import engine, made_up
from tests.benchmarks.test_tables import found

NOVEL = Text(name="novel.txt", sha256="0" * 64, tokens=4000)
NEWS = Text(name="news.txt", sha256="1" * 64, tokens=800)


def point(name: str, megabytes: float, *kl: float, **more: Any) -> Point:
    distances = [Distance(kl=each, agreement=1 - 10 * each) for each in kl]
    values = {"label": name, "ours": False, "size": int(megabytes * 1e6)} | more
    return Point(name=name, distances=distances, **values)


def compared(*points: Point, **changes: Any) -> Comparison:
    cpu = Machine(cpu="CPU", flags=[], cores=2, memory_bytes=8, system="Linux", python="3.11")
    values: dict[str, Any] = {
        **{"date": "2026-01-02T03:04:05+00:00", "issun": "0.1.0", "commit": "abc"},
        **{"machine": cpu, "checkpoint": "small", "window": 400, "calibration": "c.txt"},
        "texts": [NOVEL, NEWS],
    }
    return Comparison(points=list(points), **(values | changes))


def several() -> Comparison:
    return compared(
        point("b4", 12.5, 0.0018, 0.006, ours=True, bundle="id"),
        point("llama.cpp-q4_0", 13.0, 0.00259, 0.00646, types="Q4_0 32, Q6_K 1"),
        point("openvino-int4", 0, status="crashed", reason="killed by SIGILL"),
        point("b8", 19.2, 0.0002512345, 0.00039, ours=True, bundle="other"),
    )


def test_a_comparison_is_stored_with_six_digits(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_comparison(path, several())
    read = read_comparison(path)
    assert read.points[3].distances[0].kl == 0.000251234
    assert read.points[:3] == several().points[:3]
    assert [each.name for each in read.measured] == ["b8", "llama.cpp-q4_0", "b4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "is not a file from `issun bench fidelity --peers`: Object missing"),
        (b"\xff", "is not a file from"),
        (None, "cannot be read: No such file"),
        ({"format": 2}, "has format 2; this version of issun reads format 1."),
    ],
)
def test_other_files_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    if isinstance(content, dict):
        write_comparison(path, several())
        content = json.dumps(json.loads(path.read_bytes()) | content).encode()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=re.escape(message)):
        read_comparison(path)


def test_speeds_are_those_of_the_same_engine_or_bundle() -> None:
    comparison = several()
    run = made_up(
        engine("llama.cpp-q4_0", samples={"decode-128": [0.05, 0.04, 0.05]}),
        engine("issun-int4", bundle="id", samples={"decode-128": [0.01]}),
        engine("b8", bundle="changed", samples={"decode-128": [0.02]}),
        engine("openvino-int4", samples={"prefill-128": [0.02]}),
    )
    comparison.add_speeds(run)
    assert [each.decode for each in comparison.points] == [100, None, None, None]
    run.checkpoint = comparison.checkpoint
    comparison.add_speeds(run)
    assert [each.decode for each in comparison.points] == [100, 20, None, None]
    assert comparison.speeds == f"{run.checkpoint}, 2026-01-02, <b>CPU</b>"


def test_the_table() -> None:
    comparison = several()
    comparison.points[1].decode = 123.45
    comparison.speeds = "a run"
    assert table(comparison).splitlines() == [
        "KL divergence from float32 in nats, and share of equal most likely tokens",
        "windows of 400 tokens; importance matrices and other fits: c.txt",
        "decode after 128 tokens: a run",
        "text 1: novel.txt (4,000 tokens)",
        "text 2: news.txt (800 tokens)",
        "",
        "                     MB        1                 2           tokens/s",
        "b8                19.20   0.00025  99.75%   0.00039  99.61%         -",
        "llama.cpp-q4_0    13.00   0.00259  97.41%   0.00646  93.54%     123.5  Q4_0 32, Q6_K 1",
        "b4                12.50   0.00180  98.20%   0.00600  94.00%         -",
        "openvino-int4   crashed: killed by SIGILL",
    ]


def test_the_plots_of_the_readme() -> None:
    comparison = several()
    texts = README_TEXTS["README.md"]
    by_size = plots(comparison, texts)
    assert list(by_size) == [texts.by_size[0]]  # no speed is known
    (svg,) = by_size.values()
    assert svg.count("<circle") == 3
    assert all(f">{tick}</text>" in svg for tick in ("12", "20", "0.0002", "0.005"))
    assert "openvino" not in svg
    comparison.points[0].decode, comparison.speeds = 50.0, "a run"
    assert plots(comparison, texts)[texts.by_speed[0]].count("<circle") == 1
    text = block(comparison, texts)
    assert text.startswith("![Fidelity and size: lower and further left is better](docs/images/")
    assert "4,000 tokens of novel.txt in windows of 400: CPU." in text
    assert text.endswith(" Speeds: a run.")


def test_the_table_of_the_documentation() -> None:
    assert distances_table(several()).splitlines() == [
        "| engine | MB | novel.txt | news.txt | types of matrices |",
        "| --- | --: | --: | --: | --- |",
        "| **b8** | 19.2 | 0.00025, 99.7% | 0.00039, 99.6% |  |",
        "| llama.cpp-q4_0 | 13.0 | 0.00259, 97.4% | 0.00646, 93.5% | Q4_0 32, Q6_K 1 |",
        "| **b4** | 12.5 | 0.00180, 98.2% | 0.00600, 94.0% |  |",
        "",
        "openvino-int4: crashed: killed by SIGILL.",
    ]


def test_the_report_has_the_plots_of_a_comparison(tmp_path: Path) -> None:
    plain = write_report(found(), tmp_path / "plain").read_text(encoding="utf-8")
    both = write_report(found(), tmp_path / "both", several()).read_text(encoding="utf-8")
    assert plain.count("<figure>") == 1
    assert both.count("<figure>") == 2  # no speed is known
    assert 'alt="Fidelity and size: lower and further left is better"' in both


def test_the_importance_matrix_has_the_mean_squares_of_inputs(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, text = checkpoint("unscaled"), tmp_path / "text.txt"
    text.write_text("山と川と海の話をしましょう。\n" * 90, encoding="utf-8")
    found = open_checkpoint(folder)
    windows = calibration_windows(folder, text)
    assert windows.shape[1] == 256
    x = found.tensors["embed.weight"].read()[windows]
    x = x + found.tensors["positions.weight"].read()[:256]
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + found.network.epsilon)
    normal *= found.tensors["h.0.norm_1.weight"].read()
    normal += found.tensors["h.0.norm_1.bias"].read()
    squares = input_mean_squares(folder, text)
    np.testing.assert_allclose(squares["h.0.qkv"], np.square(normal).mean((0, 1)), rtol=1e-3)
    assert len(squares) == 4 * found.network.n_layer
    assert squares["h.1.down"].shape == (found.network.n_inner,)
