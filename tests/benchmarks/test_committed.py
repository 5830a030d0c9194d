"""What README and the committed page tell is what the committed results hold."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from issun.benchmarks.measured import Results, read_results
from issun.benchmarks.report import headline, render
from issun.benchmarks.tables import markdown

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(RESULTS / "1b.json")


def test_the_readme_s_table_is_of_the_committed_results(results: Results) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown(results) in readme


def test_the_committed_page_is_of_the_committed_results(results: Results) -> None:
    """All but the plots, whose lines the version of matplotlib moves."""
    page = (RESULTS / "report.html").read_text(encoding="utf-8")
    assert re.sub(r"<figure>.*</figure>", "", page, flags=re.S) == render(results, [])
    assert headline(results)[0] in unescape(page)


def test_every_committed_file_can_be_read() -> None:
    files = sorted(RESULTS.glob("*.json"))
    assert len(files) >= 1
    for file in files:
        assert all(engine.samples for engine in read_results(file).engines)
