"""The HTML page is self-contained, and plots are drawn from incomplete results too."""

from __future__ import annotations

import re
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.text import Text

from issun.benchmarks.errors import BenchError
from issun.benchmarks.measured import EngineResult, Memory
from issun.benchmarks.plots import (
    PLOTS,
    decode_by_depth,
    memory_against_speed,
    prefill_bars,
)
from issun.benchmarks.report import headline, render, write_report
from tests.benchmarks.test_results import made_up
from tests.benchmarks.test_tables import crashed, fast, found, slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert write_report(found(), folder / "page") == folder / "page" / "report.html"
    return folder / "page"


def test_the_page_is_self_contained(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<meta charset="utf-8">' in page
    assert "<script" not in page
    assert not re.search(r"https?://", page)
    assert not re.search(r"(src|href)=\"(?!#)", page.replace("xlink:href", "href"))


def test_texts_of_engines_are_escaped(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "crashed: killed by SIGILL" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "&lt;b&gt;CPU&lt;/b&gt;" in page


def test_the_page_says_whether_engines_were_interleaved() -> None:
    results = found()
    pages = []
    for results.turn in (0.0, 0.5):
        pages.append(render(results, []))
    separate, interleaved = pages
    assert "one per round" in separate
    assert "interleaved in time slices of 0.5 s" in interleaved
    assert ("time slices" in separate, "one per round" in interleaved) == (False, False)


def test_the_headline_by_hand() -> None:
    """1.6 of 6.4 GB, and 5 instead of 2.5 tokens per second."""
    japanese, english = headline(found())
    assert japanese == "issun int8: メモリーは torch float32 の 25%、生成速度は 2.0 倍"
    assert english == (
        "issun int8 needs 1.60 GB of memory, torch float32 6.40 GB (4.0 times as much); issun int8 "
        "decodes 2.0 times as fast."
    )
    assert headline(made_up(fast())) == (
        "issun ベンチマーク",
        "issun bench: speed and memory, as measured.",
    )


def test_the_page_has_the_headline(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "メモリーは torch float32 の 25%" in page


@pytest.mark.parametrize("name", PLOTS)
def test_plots_have_their_labels(folder: Path, name: str) -> None:
    assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert (folder / "plots" / f"{name}.png").stat().st_size > 5_000
    root = ElementTree.parse(folder / "plots" / f"{name}.svg").getroot()  # noqa: S314 - our own
    assert root.tag.endswith("svg")
    text = (folder / "plots" / f"{name}.svg").read_text(encoding="utf-8")
    assert "issun int8" in text
    assert "torch float32" in text


@pytest.mark.sampled
@pytest.mark.parametrize(
    "engines",
    [
        (),
        (crashed(),),
        (EngineResult(name="x", label="x", threads=2, samples={"load": [1.0]}),),
        (slow(memory={}), fast(samples={"decode-900": [0.1]}, threads=1)),
    ],
)
def test_incomplete_results_are_plotted(tmp_path: Path, engines: tuple[EngineResult, ...]) -> None:
    page = write_report(made_up(*engines), tmp_path).read_text(encoding="utf-8")
    assert page.count("<figure>") == len(PLOTS)


def test_missing_matplotlib_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BenchError, match=r"issun\[bench\]"):
        write_report(found(), tmp_path)


def test_the_headline_compares_equal_numbers_of_threads() -> None:
    """Results with two threads are not compared with torch with one thread."""
    small = fast(memory={1000: Memory(peak=800_000_000)})
    engines = (slow(threads=1), fast(threads=1), small)
    assert headline(made_up(*engines))[0].endswith("の 25%、生成速度は 2.0 倍")
    assert headline(made_up(slow(threads=1), small))[0] == "issun ベンチマーク"


def test_svg_ids_are_unique_in_the_page(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert {a or b for a, b in used} <= set(ids)


def test_labels_overlap_neither_each_other_nor_points() -> None:
    near = [
        fast(name=name, label=name, memory={1000: Memory(peak=1_600_000_000 + 10**8 * place)})
        for place, name in enumerate(("issun-int8", "openvino-int8", "optimum-int8", "x$\\b$"))
    ]
    axes = memory_against_speed(made_up(*near)).axes[0]
    for text in axes.texts:
        text.get_window_extent()  # positions it
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    points = axes.transData.transform([(1.6 + 0.1 * place, 5.0) for place in range(4)])
    assert not any(box.contains(x, y) for box in boxes for x, y in points)


def test_a_missing_size_has_no_speed() -> None:
    short = slow(samples={"prefill-32": [1.0]})
    axes = prefill_bars(made_up(fast(), short)).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "-  (32)",
        "32  (32)",
        "512  (128)",
        "-  (128)",
    ]


def test_engines_of_a_family_have_different_line_styles() -> None:
    labels = [f"issun {place}" for place in range(5)]
    axes = decode_by_depth(made_up(*(fast(label=label) for label in labels))).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    styles = {str(lines[label]._unscaled_dash_pattern) for label in labels}  # type: ignore[attr-defined]
    assert len(styles) == 5


def test_the_limit_is_the_bandwidth_divided_by_the_bytes_per_token() -> None:
    """10 GB/s divided by 1 GB of weights, and by 2.5 GB with 150 tokens of 10 MB."""
    engine = fast(kv_bytes=10**7, samples={"decode-0": [0.2], "decode-150": [0.5]})
    lines = {str(line.get_label()): line for line in decode_by_depth(made_up(engine)).axes[0].lines}
    measured, limit = lines["issun int8"], lines["limit of issun int8"]
    assert [list(line.get_xdata()) for line in (measured, limit)] == [[0, 150], [0, 150]]  # type: ignore[arg-type]
    assert list(measured.get_ydata()) == [5.0, 2.0]  # type: ignore[arg-type]
    assert list(limit.get_ydata()) == [10.0, 4.0]  # type: ignore[arg-type]
