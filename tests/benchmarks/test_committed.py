"""README, the documentation, the report and `bench fit` show the committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.benchmarks.distances import read_comparison
from issun.benchmarks.fit import Fit, fit
from issun.benchmarks.measured import PUBLISHED, Results, read_results, write_results
from issun.benchmarks.publish import COMPARISON, SOURCE, SUMMARY, figures, summary
from issun.benchmarks.report import write_report

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(ROOT / SOURCE)


def test_the_committed_page_matches_the_committed_results(results: Results, tmp_path: Path) -> None:
    page = write_report(results, tmp_path, read_comparison(ROOT / COMPARISON))
    committed = (ROOT / SOURCE).with_name("report.html")
    assert committed.read_bytes() == page.read_bytes(), "run `make figures`"


@pytest.mark.parametrize("path", sorted(figures(ROOT)), ids=lambda path: path.name)
def test_figures_match_the_committed_results(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == figures(ROOT)[path], "run `make figures`"


def test_the_packaged_summary_matches_the_committed_results(
    results: Results, tmp_path: Path
) -> None:
    assert PUBLISHED == ROOT / SUMMARY
    write_results(tmp_path / "summary.json", summary(results))
    assert PUBLISHED.read_bytes() == (tmp_path / "summary.json").read_bytes(), "run `make figures`"
    assert PUBLISHED.stat().st_size < 20_000


@pytest.mark.parametrize("ram", [1_500_000_000, 3_000_000_000, 10_000_000_000])
def test_fit_gives_the_same_result_for_the_summary_and_all_samples(
    results: Results, ram: int
) -> None:
    def shown(found: Fit) -> tuple[str, int, float, str]:
        return found.engine.label, found.context, found.full, f"{found.decode or 0:.1f}"

    published = fit(read_results(PUBLISHED), ram)
    assert list(map(shown, published)) == list(map(shown, fit(results, ram)))
