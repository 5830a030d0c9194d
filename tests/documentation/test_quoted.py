"""Messages and files that the documentation quotes are those of the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation.pages import ROOT

PAGES = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("README*.md"))]
PACKAGES = ("benchmarks", "cli", "cluster", "export", "kit", "runtime", "server", "training", "web")


def test_quoted_errors_are_messages_of_the_source() -> None:
    """Lines after `error: `, and all of troubleshooting.md, match a template of the source."""
    known = [re.compile(_pattern(text)) for text in _templates()]
    quoted = [
        line.removeprefix("error: ")
        for page in PAGES
        for block in re.findall(r"^```text\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        for line in block.splitlines()
        if line.startswith("error: ") or page.name == "troubleshooting.md"
    ]
    assert len(quoted) > 20
    assert [line for line in quoted if not any(one.fullmatch(line) for one in known)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths of the repository in backticks, such as `runtime/model.py` and `export/`."""
    folders = "|".join((*PACKAGES, "docs", "examples", "tests"))
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def _templates() -> Iterator[str]:
    """Every text of the source that may be a message's template: a line of some words."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                    if "\n" not in text and re.search(r"[a-z]{3}[^{]* [a-z]{2}", text):
                        yield text


def _pattern(template: str) -> str:
    """A regular expression for a template, whose `{fields}` may be anything."""
    parts = re.split(r"\{\w*(?:[!:][^{}]*)?\}", template)
    return ".+".join(map(re.escape, parts))
