"""The page stands alone and says what was measured, and the plots are drawn from what there is."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from issun.benchmarks.errors import BenchError
from issun.benchmarks.plots import PLOTS
from issun.benchmarks.report import headline, write_report
from issun.benchmarks.results import EngineResult
from tests.benchmarks.test_results import made_up
from tests.benchmarks.test_tables import crashed, fast, found, slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert write_report(found(), folder / "page") == folder / "page" / "report.html"
    return folder / "page"


def test_the_page_stands_alone(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<meta charset="utf-8">' in page
    assert "<script" not in page
    # Names of XML vocabularies are no addresses that anything is fetched from.
    outside = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert all(
        re.search(r"w3\.org|purl\.org|creativecommons\.org|matplotlib\.org", a) for a in outside
    )
    assert not re.search(r"(src|href)=\"(?!#)", page.replace("xlink:href", "href"))


def test_what_engines_say_is_escaped(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "crashed: killed by SIGILL" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "&lt;b&gt;CPU&lt;/b&gt;" in page


def test_the_headline_is_the_figures_own() -> None:
    """1.6 of 6.4 GB, and 5 tokens a second to 2.5."""
    japanese, english = headline(found())
    assert japanese == "issun int8: メモリーは torch float32 の 25%、生成速度は 2.0 倍"
    assert english == (
        "issun int8 takes 1.60 GB where torch float32 takes 6.40 GB (4.0 times as much), and "
        "decodes 2.0 times as fast."
    )
    assert headline(made_up(fast())) == (
        "issun ベンチマーク",
        "issun bench: speed and memory, as measured.",
    )


def test_the_headline_is_in_the_page(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "メモリーは torch float32 の 25%" in page


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_pictures_with_their_labels(folder: Path, name: str) -> None:
    assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert (folder / "plots" / f"{name}.png").stat().st_size > 5_000
    root = ElementTree.parse(folder / "plots" / f"{name}.svg").getroot()  # noqa: S314 - our own
    assert root.tag.endswith("svg")
    text = (folder / "plots" / f"{name}.svg").read_text(encoding="utf-8")
    assert "issun int8" in text
    assert "torch float32" in text


@pytest.mark.parametrize(
    "engines",
    [
        (),
        (crashed(),),
        (EngineResult(name="x", label="x", threads=2, samples={"load": [1.0]}),),
        (slow(memory={}), fast(samples={"decode-900": [0.1]}, threads=1)),
    ],
)
def test_a_run_with_holes_is_drawn_all_the_same(
    tmp_path: Path, engines: tuple[EngineResult, ...]
) -> None:
    page = write_report(made_up(*engines), tmp_path).read_text(encoding="utf-8")
    assert page.count("<figure>") == len(PLOTS)


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BenchError, match=r"issun\[bench\]"):
        write_report(found(), tmp_path)
