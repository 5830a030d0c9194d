"""The built documentation loads nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation.outside import check, outside_resources

SITE = Path(__file__).parents[2] / "build" / "site"


@pytest.mark.parametrize(
    "html",
    [
        '<link rel="stylesheet" href="https://fonts.example/css?family=Roboto">',
        '<link href="//fonts.example" rel="preconnect" crossorigin>',
        '<script src="https://cdn.example/mermaid.js"></script>',
        '<img alt="x" src="HTTP://images.example/badge.svg">',
        '<p style="background: url(https://images.example/a.png)">',
        '<style>@import "https://fonts.example/a.css";</style>',
    ],
)
def test_what_would_be_loaded_is_found(html: str) -> None:
    assert len(outside_resources(f"<html><body>{html}</body></html>", ".html")) == 1


def test_links_that_a_reader_follows_are_fine() -> None:
    html = '<a href="https://example.org">x</a><img src="a.svg"><link rel="canonical" href="https://x">'
    assert outside_resources(html, ".html") == []


def test_style_sheets_are_read(tmp_path: Path) -> None:
    css = "@font-face { src: url('https://fonts.example/a.woff2') }"
    (tmp_path / "a.css").write_text(css)
    assert list(check(tmp_path)) == ["a.css would load https://fonts.example/a.woff2"]


@pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built: make docs")
def test_the_built_site() -> None:
    assert list(check(SITE)) == []
