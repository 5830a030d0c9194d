"""The HTML page is self-contained, and its plot is drawn from incomplete results too."""

from __future__ import annotations

import errno
import os
import re
from base64 import b64decode
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

import pytest

from issun.benchmarks.measured import EngineResult, Memory
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
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_a_page_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = write_report(found(), tmp_path)
    before = page.read_bytes()

    def full(path: Path, mode: str, *_: object, **__: object) -> IO[bytes]:
        with open(path, mode) as file:  # noqa: PTH123 - Path.open is this function
            file.write(b"<" if "b" in mode else "<")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"No space left .*report\.html"):
        write_report(made_up(fast()), tmp_path)
    monkeypatch.undo()
    assert page.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


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


def test_the_plot_has_the_engines_and_its_title(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    ((title, encoded),) = re.findall(r'<img alt="([^"]+)" src="data:[^,]+;base64,([^"]+)"', page)
    root = ElementTree.fromstring(b64decode(encoded))  # noqa: S314 - our own
    shown = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert title in shown
    assert {"issun int8", "torch float32"} <= set(shown)
    assert len([node for node in root.iter() if node.tag.endswith("circle")]) == 2


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
    assert page.count("<figure>") == 1


def test_the_headline_compares_equal_numbers_of_threads() -> None:
    """Results with two threads are not compared with torch with one thread."""
    small = fast(memory={1000: Memory(peak=800_000_000)})
    engines = (slow(threads=1), fast(threads=1), small)
    assert headline(made_up(*engines))[0].endswith("の 25%、生成速度は 2.0 倍")
    assert headline(made_up(slow(threads=1), small))[0] == "issun ベンチマーク"
