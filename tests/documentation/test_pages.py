"""Every command of README and docs: run in the current environment, or its options checked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.documentation.environments import Current
from tests.documentation.options import errors_in_code, errors_in_line, inline_commands
from tests.documentation.pages import CHECKED, ROOT, all_pages, other_pages, prose, read_page
from tests.documentation.running import PageRun, make_materials, run_page

AS_ON_UNIX = pytest.mark.skipif(
    sys.platform == "win32" or not (shutil.which("sh") and shutil.which("curl")),
    reason="pages are run by a Unix shell, with curl",
)
PAGES = [str(page.relative_to(ROOT)) for page in all_pages()]
OTHERS = [str(page.relative_to(ROOT)) for page in other_pages()]
# Run by `make test`; the other pages by `make slow`, and all of them by `make commands`.
ALWAYS = ("README.md", "README.ja.md", "docs/getting-started.md")


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_materials(tmp_path_factory.mktemp("materials"))


def has_slow(name: str) -> bool:
    return any("slow" in block.flags for block in read_page(ROOT / name))


@AS_ON_UNIX
@pytest.mark.parametrize(
    "name",
    [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in PAGES],
)
def test_the_commands_of_a_page_run(name: str, materials: dict[str, Path], tmp_path: Path) -> None:
    """Without those that take long, and those whose extra is not installed here."""
    blocks = [block for block in read_page(ROOT / name) if "slow" not in block.flags]
    with PageRun(tmp_path, Current(), materials) as run:
        for left_out in run_page(run, blocks):
            print(left_out)


@pytest.mark.slow
@AS_ON_UNIX
@pytest.mark.parametrize("name", [name for name in PAGES if has_slow(name)])
def test_the_slow_commands_of_a_page_run(
    name: str, materials: dict[str, Path], tmp_path: Path
) -> None:
    with PageRun(tmp_path, Current(), materials) as run:
        run_page(run, read_page(ROOT / name))


@pytest.mark.parametrize("name", [*PAGES, *OTHERS])
def test_the_commands_that_are_not_run_have_the_options_of_help(name: str) -> None:
    wrong = [
        f"{block.place}: {error}"
        for block in read_page(ROOT / name)
        if block.language in CHECKED and block.language != "python"
        for error in errors_in_code(block.code)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [*PAGES, *OTHERS])
def test_the_commands_in_sentences_have_the_options_of_help(name: str) -> None:
    lines = inline_commands(prose(ROOT / name))
    assert [f"`{line}`: {error}" for line in lines for error in errors_in_line(line)] == []


@pytest.mark.parametrize("name", PAGES)
def test_python_that_is_not_run_is_python(name: str) -> None:
    for block in read_page(ROOT / name):
        if block.language == "python" and block.reason is not None:
            compile(block.code, block.place, "exec")
