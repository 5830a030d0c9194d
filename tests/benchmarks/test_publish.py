"""The README's plot and table, from invented results."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from issun.benchmarks.distances import write_comparison
from issun.benchmarks.measured import EngineResult, Memory, Results, write_results
from issun.benchmarks.publish import (
    COMPARISON,
    MEASUREMENTS,
    READMES,
    SOURCE,
    figures,
    summary,
    table,
)
from issun.benchmarks.report import memory_plot
from issun.benchmarks.scatter import Axis, Point, linear_axis, log_axis, scatter, tick_step
from tests.benchmarks.test_distances import several
from tests.benchmarks.test_results import engine, made_up

ENGLISH = READMES["README.md"]


def results() -> Results:
    samples = {"decode-128": [0.05], "prefill-512": [2.0], "load": [1.0, 3.0]}
    whole = engine(
        "issun-int8",
        versions={"onnxruntime": "9.9"},
        disk_bytes=2_500_000_000,
        memory={1000: Memory(peak=1_230_000_000, resting=1_000_000)},
        samples=samples,
    )
    return made_up(whole, engine("peer"), engine("gone", status="crashed"))


def test_the_table_has_six_columns_and_names_date_and_machine() -> None:
    header, rule, issun, peer, *rest = table(results(), ENGLISH).splitlines()
    assert header.count("|") == rule.count("|") == 7
    assert issun == "| **issun-int8** | 2.50 GB | 1.23 GB | 2.0 s | 256 | 20.0 |"
    assert peer == "| peer | - | - | - | - | - |"
    assert rest[0] == ""  # a crashed engine has no row
    assert rest[1].startswith(
        "Measured on 2026-01-02: <b>CPU</b>, 2 threads, 8 GB of memory, onnxruntime 9.9, Python 3."
    )


def test_the_plot_has_the_engines_with_memory_and_speed() -> None:
    root = ElementTree.fromstring(memory_plot(results(), ENGLISH.title, ENGLISH.x, ENGLISH.y))  # noqa: S314 - our own
    shown = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert "issun-int8" in shown
    assert "peer" not in shown
    assert len([node for node in root.iter() if node.tag.endswith("circle")]) == 1


def labels(svg: str) -> list[tuple[float, float, float, float]]:
    """The boxes of the points' labels, with a generous width per character."""
    found = []
    pattern = (
        r'<text class="label text" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"[^>]*>([^<]+)<'
    )
    for x, y, anchor, text in re.findall(pattern, svg)[1:]:  # without the title
        width = 6.9 * len(text)
        left = float(x) - (width if anchor == "end" else 0)
        found.append((left, float(y) - 11, left + width, float(y) + 3))
    return found


def test_labels_overlap_neither_each_other_nor_the_edge() -> None:
    places = [(1.0, 60), (1.05, 60), (1.1, 59), (1.1, 61), (8.9, 60), (9.0, 2), (1.0, 1)]
    points = [Point(f"engine {n}", memory, rate, n < 2) for n, (memory, rate) in enumerate(places)]
    x = linear_axis("x", [point.x for point in points], 1, room=1.15)
    y = linear_axis("y", [point.y for point in points], 10)
    boxes = labels(scatter(points, title="t", x=x, y=y))
    assert len(boxes) == len(points)
    for one, other in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0]
        assert apart or one[3] <= other[1] or other[3] <= one[1]
    assert all(box[0] >= 0 and box[2] <= 760 for box in boxes)


def test_lines_to_labels_do_not_cross() -> None:
    """The two engines at the left, one of them a little higher, had their labels exchanged."""
    places = {
        "issun int8": (1.88, 28.9),
        "issun int8, int8 KV": (1.59, 29.2),
        "issun int4": (1.33, 45.8),
        "issun int4, int8 KV": (1.05, 47.9),
        "OpenVINO int8": (3.38, 26.0),
        "OpenVINO int4": (2.27, 27.0),
        "Optimum int8": (3.03, 24.7),
        "llama.cpp Q8_0": (1.69, 26.6),
        "llama.cpp Q4_0": (1.73, 46.9),
        "torch bfloat16": (8.3, 4.9),
    }
    points = [Point(name, *place, ours=True) for name, place in places.items()]
    x = linear_axis("x", [point.x for point in points], 1, room=1.15)
    y = linear_axis("y", [point.y for point in points], 10)
    svg = scatter(points, title="t", x=x, y=y)
    number = r"([\d.]+)"
    found = re.findall(rf'class="lead" d="M{number} {number}L{number} {number}"', svg)
    leads = [tuple(map(float, lead)) for lead in found]
    assert len(leads) >= 2

    def side(line: tuple[float, ...], across: float, up: float) -> float:
        return (line[2] - line[0]) * (up - line[1]) - (line[3] - line[1]) * (across - line[0])

    for one, other in combinations(leads, 2):
        apart = side(one, *other[:2]) * side(one, *other[2:]) > 0
        assert apart or side(other, *one[:2]) * side(other, *one[2:]) > 0


@pytest.mark.parametrize(
    ("largest", "step"), [(3, 1), (8, 1), (9, 2), (40, 5), (41, 10), (1122, 200), (1601, 500)]
)
def test_ticks_are_few_round_numbers(largest: float, step: int) -> None:
    assert tick_step(largest) == step


def test_labels_are_escaped() -> None:
    axis = Axis("x", (0, 2))
    svg = scatter([Point("a<b>&", 1, 1, True)], title="<t>", x=axis, y=axis)
    assert "a&lt;b&gt;&amp;" in svg
    assert "&lt;t&gt;" in svg


def test_the_summary_is_what_fit_reads() -> None:
    kept = summary(results())
    expected = EngineResult(
        name="issun-int8",
        label="issun-int8",
        threads=2,
        memory={1000: Memory(peak=1_230_000_000)},
        samples={"decode-128": [0.05]},
    )
    assert kept.engines[0] == expected
    assert kept.date == results().date


def test_blocks_are_written_between_their_markers(tmp_path: Path) -> None:
    for path in (SOURCE, MEASUREMENTS):
        (tmp_path / path).parent.mkdir(parents=True)
    write_results(tmp_path / SOURCE, results())
    write_comparison(tmp_path / COMPARISON, several())
    (tmp_path / MEASUREMENTS).write_text(
        "<!-- results --><!-- /results --><!-- fidelity --><!-- /fidelity -->", encoding="utf-8"
    )
    readme = tmp_path / "README.md"
    readme.write_text(
        "above\n<!-- figures -->\nold\n<!-- /figures -->\nbelow\n"
        "<!-- fidelity --><!-- /fidelity -->\nend\n",
        encoding="utf-8",
    )
    text = figures(tmp_path)[readme]
    assert text.startswith("above\n<!-- figures -->\n![A 1.3 B model")
    assert "\n<!-- /figures -->\nbelow\n<!-- fidelity -->\n![Fidelity and size" in text
    assert text.endswith("\n<!-- /fidelity -->\nend\n")
    assert "old" not in text
    readme.write_text(text, encoding="utf-8")
    assert figures(tmp_path)[readme] == text
    readme.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"README\.md has no line <!-- figures -->"):
        figures(tmp_path)


def test_axes() -> None:
    assert linear_axis("x", [1, 6.9], 1, room=1.15).ticks == tuple(range(9))
    assert linear_axis("x", [11, 19.2], 2, room=1.1, low=10).ticks == (10, 12, 14, 16, 18, 20, 22)
    axis = log_axis("y", [0.00025, 0.0018])
    np.testing.assert_allclose(axis.ticks, [0.0002, 0.0005, 0.001, 0.002])
    assert axis.share(0.0002) == 0
    assert axis.share(0.002) == pytest.approx(1)
    assert axis.share(0.0002 * 10**0.5) == pytest.approx(0.5)
    assert log_axis("y", [1, 5]).ticks == (1, 2, 5, 10)  # room above the largest value
