"""What annotations mean, what is refused, and what the check of options finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.documentation.environments import Current
from tests.documentation.options import errors_in_code, errors_in_line, inline_commands
from tests.documentation.pages import Block, Environment, prose, read_page
from tests.documentation.running import BlockError, PageRun, run_page
from tests.documentation.test_pages import AS_ON_UNIX

Page = Callable[[str], Path]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    def write(text: str) -> Path:
        path = tmp_path / "page.md"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def run(blocks: list[Block], folder: Path) -> list[str]:
    place = folder / "run"
    place.mkdir()
    with PageRun(place, Current(), {"$BUNDLE": Path("/bundles/one")}) as page_run:
        return run_page(page_run, blocks)


def test_blocks_have_their_annotations_and_lines(page: Page) -> None:
    first, second, third = read_page(
        page(
            "# Title\n\n<!-- run: extra=export; slow; replace BASE=$BUNDLE -->\n"
            "```sh\necho BASE\n```\n\n"
            "<!-- file: a/records.jsonl -->\n```json\n{}\n```\n"
            "1. a list\n\n   <!-- setup: touch x -->\n   ```python\n   print(1)\n   ```\n"
        )
    )
    assert (first.line, first.language, first.code) == (4, "sh", "echo BASE\n")
    assert first.environment == Environment(("export",))
    assert first.flags == {"slow"}
    assert first.replacements == (("BASE", "$BUNDLE"),)
    assert (second.file, second.runs) == ("a/records.jsonl", False)
    assert (third.setup, third.code) == (("touch x",), "print(1)\n")


def test_lines_that_install_choose_the_environment_of_what_follows(page: Page) -> None:
    blocks = read_page(
        page(
            "```sh\npip install torch\n```\n"
            "```sh\npython -m pip install -e '.[train]'   # a note\nissun --version\n```\n"
            "```sh\npip install openai\n```\n"
            "```sh\npip install .\n```\n"
        )
    )
    assert [str(block.environment) for block in blocks] == [
        "issun torch",
        "issun[train]",
        "issun[train] openai",
        "issun",
    ]
    assert blocks[1].code == "\nissun --version\n"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ("run: quickly", "page.md:2: the annotation has an unknown word 'quickly'"),
        ("run: no", "`run: no` needs a reason"),
        ("run: no; ", "`run: no` needs a reason"),
        ("run: replace BASE=$BUNDLE", "there is no 'BASE' to replace"),
    ],
)
def test_what_is_not_understood_is_an_error(annotation: str, message: str, page: Page) -> None:
    with pytest.raises(ValueError, match=message):
        read_page(page(f"<!-- {annotation} -->\n```sh\ntrue\n```\n"))


def test_an_annotation_above_no_block_is_an_error(page: Page) -> None:
    with pytest.raises(ValueError, match="above no block"):
        read_page(page("<!-- run: slow -->\nA sentence.\n\n```sh\ntrue\n```\n"))


@pytest.mark.parametrize("language", ["bash", "console", "py", ""])
def test_a_block_does_not_escape_by_another_name(language: str, page: Page) -> None:
    with pytest.raises(ValueError, match=r"page.md:3: name the block's language"):
        read_page(page(f"Start it:\n\n```{language}\nissun chatt\n```\n"))


@AS_ON_UNIX
def test_blocks_share_a_folder_and_python_may_continue(page: Page, tmp_path: Path) -> None:
    text = (
        "<!-- file: in.txt -->\n```text\n富士山\n```\n"
        "<!-- run: shows 富士山 -->\n```sh\ncat in.txt\n```\n"
        "```python\nmountain = open('in.txt', encoding='utf-8').read()\n```\n"
        "<!-- run: continue; shows 山士富 -->\n```python\nprint(mountain[::-1])\n```\n"
        "<!-- run: stdin=a\\nb; shows 2 -->\n```sh\ngrep -c .\n```\n"
        "<!-- run: fails -->\n```sh\nfalse\n```\n"
        "<!-- run: replace DIR=$BUNDLE; shows /bundles/one -->\n```sh\necho DIR\n```\n"
        "<!-- run: packages=no-such-package -->\n```sh\nfalse\n```\n"
        "<!-- run: no; it takes hours -->\n```sh\nfalse\n```\n"
    )
    (left_out,) = run(read_page(page(text)), tmp_path)
    assert left_out.endswith("issun no-such-package is not installed")


@AS_ON_UNIX
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\nfalse\ntrue\n```\n", "ended with 1"),
        ("```python\nprint('seen'); raise ValueError('why')\n```\n", "seen.*ValueError: why"),
        ("<!-- run: fails -->\n```sh\ntrue\n```\n", "ended with 0"),
        ("<!-- run: shows 富士山 -->\n```sh\necho 高尾山\n```\n", "does not show '富士山'"),
        ("<!-- run: background -->\n```sh\necho no server\n```\n", "does not listen.*no server"),
    ],
)
def test_a_block_that_does_something_else_fails(
    text: str, message: str, page: Page, tmp_path: Path
) -> None:
    with pytest.raises(BlockError, match=f"(?s){message}"):
        run(read_page(page(text)), tmp_path)


@AS_ON_UNIX
def test_a_server_runs_until_the_page_ends(page: Page, tmp_path: Path) -> None:
    text = (
        "<!-- run: background -->\n```sh\nissun serve\n```\n"
        '<!-- run: shows "ok" -->\n```sh\ncurl -s http://127.0.0.1:8000/health\n```\n'
    )
    assert run(read_page(page(text)), tmp_path) == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("issun export SOURCE -o b8 --precision int4", None),
        (
            "issun export SOURCE \\\n  -o b8 --presicion int4",
            "issun export has no option --presicion",
        ),
        ("issun export SOURCE `\n  -o b8 --gptq2", "issun export has no option --gptq2"),
        ("issun bench fidelity b8", "issun bench fidelity: Missing option"),
        ("ISSUN_LANG=en issun chat --seed x < in.txt", "issun chat: Invalid value for '--seed'"),
        ("cat a.txt | issun talk", "issun has no command talk"),
        ("issun bench b8 --rounds 1 -o new.json", None),
        ("issun bench fit --ramm 2GB", "issun bench fit has no option --ramm"),
        ("issun chat one two", "issun chat: Got unexpected extra argument"),
        ("issun chat --help && issun --version", None),
        ("make demo; make dmeo", "make has no target dmeo"),
        ("python -m issun.benchmarks.strat b8", "there is no module issun.benchmarks.strat"),
        ("python -m issun.benchmarks.together b8 --round 2", "together has no --round"),
        ("python -m issun.benchmarks.start b8 --threads 2", None),
    ],
)
def test_commands_that_are_not_run_are_checked(code: str, error: str | None) -> None:
    found = list(errors_in_code(code))
    assert (not found) if error is None else (len(found) == 1 and error in found[0]), found


def test_commands_in_sentences_are_checked_by_name(page: Page) -> None:
    text = prose(
        page("`issun export --budgt 1GB` and `issun cache`, `--gptq`.\n```sh\nissun x\n```\n")
    )
    (first, second) = inline_commands(text)
    assert list(errors_in_line(first)) == ["issun export has no option --budgt"]
    assert list(errors_in_line(second)) == []
