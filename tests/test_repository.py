"""The repository's own files agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_ci_tests_every_python_that_the_package_names() -> None:
    (matrix,) = re.findall(r"python: \[(.*)\]", text(".github/workflows/ci.yml"))
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert re.findall(r"\d\.\d+", matrix) == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in text("CITATION.cff")


def test_the_changelog_and_the_release_know_the_version() -> None:
    assert re.search(
        rf"^## \[?({re.escape(PROJECT['version'])}|Unreleased)", text("CHANGELOG.md"), re.M
    )
    assert re.search(
        rf'^version = "{re.escape(PROJECT["version"])}"$', text("pyproject.toml"), re.M
    )


@pytest.mark.parametrize("target", " ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.M)).split())
def test_every_target_has_help_and_is_explained(target: str) -> None:
    assert re.search(rf"^{target}:.*## \w", MAKEFILE, re.M), "make help does not list it"
    assert f"| `make {target}` |" in text("CONTRIBUTING.md")
