"""Help and usage errors: in the reader's language, and no wider than the terminal."""

import json
import re
import subprocess
import sys

import pytest

from issun.cli.usage import translate
from issun.cli.wrapping import columns, wrap
from tests.cli.conftest import environment, issun

EVERY_HELP = """
import json, typer.main
from issun.cli.main import make_app

def pages(command, context):
    yield command.get_help(context)
    for name, sub in getattr(command, "commands", {}).items():
        yield from pages(sub, sub.context_class(sub, info_name=name, parent=context))

root = typer.main.get_command(make_app())
found = {}
for width in (60, 80, 100, 200):
    context = root.context_class(root, info_name="issun", terminal_width=width,
                                 help_option_names=["-h", "--help"])
    found[width] = list(pages(root, context))
print(json.dumps(found))
"""
# What an argument parser says of itself.
ENGLISH = re.compile(
    r"usage|options\b|arguments\b|commands\b|\[args|default|required|env var|show this|exit|help\.",
    re.IGNORECASE,
)


def every_help(language: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", EVERY_HELP],
        capture_output=True,
        env=environment(ISSUN_LANG=language),
        check=True,
    )
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def japanese() -> dict[str, list[str]]:
    return every_help("ja")


def test_every_command_has_a_page(japanese: dict[str, list[str]]) -> None:
    assert all(len(pages) >= 14 for pages in japanese.values())
    assert all(page.startswith("使い方: issun") for page in japanese["80"])


def test_sampling_parameters_have_a_heading_of_their_own(japanese: dict[str, list[str]]) -> None:
    (page,) = [page for page in japanese["200"] if page.startswith("使い方: issun generate ")]
    before, after = page.split("サンプリングのオプション:")
    assert before.index("引数:") < before.index("オプション:") < before.index("--help")
    assert "--temperature" in after
    assert "--mirostat-tau" in after
    assert "--json" not in after


@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal(japanese: dict[str, list[str]]) -> None:
    for width, pages in (japanese | every_help("en")).items():
        for line in "\n".join(pages).split("\n"):
            assert columns(line) <= int(width), line


def test_lines_are_filled(japanese: dict[str, list[str]]) -> None:
    """Wrapping by characters would leave half of a Japanese line empty, or break it at 160."""
    assert max(columns(line) for line in "\n".join(japanese["80"]).split("\n")) > 74


def test_no_word_of_the_parser_is_english(japanese: dict[str, list[str]]) -> None:
    own = re.compile(r"(--[\w-]+|`[^`]*`|\[既定: [^]]*\])")
    for page in japanese["200"]:
        assert not ENGLISH.search(own.sub("", page)), page


def test_the_help_of_one_command() -> None:
    assert issun("cache", "--help", ISSUN_LANG="ja", COLUMNS="60").out == (
        "使い方: issun cache [オプション] [ACTION]\n"
        "\n"
        "  この CPU 用にパッキングした重みを一覧表示・検査・削除し\n"
        "  ます。\n"
        "\n"
        "引数:\n"
        "  ACTION  list（一覧）、verify（ハッシュと照合）、clear\n"
        "          （すべて削除）のいずれか。  [既定: list]\n"
        "\n"
        "オプション:\n"
        "  -h, --help  このヘルプを表示します。\n"
    )


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--forse"], "--forse というオプションはありません。もしかして: --force"),
        (["generate", "--foo"], "--foo というオプションはありません。"),  # nor is it like --lookup
        (["chat", "--xyzzy"], "--xyzzy というオプションはありません。"),
        (["export"], "引数 SOURCE を指定してください。"),
        (["bench", "fidelity", "a"], "オプション --against を指定してください。"),
        (
            ["chat", "--threads", "x"],
            "--threads の値が正しくありません: 'x' は整数ではありません。",
        ),
        (["chat", "--top-p", "x"], "--top-p の値が正しくありません: 'x' は数値ではありません。"),
        (["chat", "--seed"], "オプション --seed には値が必要です。"),
        (["chat", "--stats=3"], "オプション --stats に値は指定できません。"),
        (["chat", "a", "b", "c"], "余分な引数があります: b c"),
        (["chta"], "chta というコマンドはありません。もしかして: chat"),
        (["xyzzy"], "xyzzy というコマンドはありません。"),
        (["--foo"], "--foo というオプションはありません。"),
    ],
)
def test_usage_errors_in_japanese(arguments: list[str], message: str) -> None:
    result = issun(*arguments, ISSUN_LANG="ja")
    assert (result.code, result.out) == (2, "")
    *usage, last = result.err.splitlines()
    assert last == f"エラー: {message}"
    assert not ENGLISH.search(re.sub(r"--\w+", "", "\n".join(usage)))


def test_a_usage_error_in_english() -> None:
    assert issun("export", "--forse").err == (
        "Usage: issun export [OPTIONS] SOURCE\n"
        "Try 'issun export --help' for help.\n"
        "\n"
        "error: No such option: --forse (Possible options: --force)\n"
    )


@pytest.mark.slow
def test_without_arguments_the_help_is_shown() -> None:
    result = issun(ISSUN_LANG="ja")
    assert (result.code, result.out) == (2, "")
    assert result.err == issun("--help", ISSUN_LANG="ja").out


def test_a_text_that_is_not_the_parser_s_stays() -> None:
    assert translate("default") == "default"
    assert translate("a message {with} braces") == "a message {with} braces"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("山と川と海", 4, ["山と", "川と", "海"]),
        ("山と川。海", 6, ["山と", "川。海"]),  # no line begins with a full stop
        ("山と（川）海", 6, ["山と", "（川）", "海"]),  # nor ends with an opening bracket
        ("値は --kv-cache です", 12, ["値は", "--kv-cache", "です"]),
        ("カーテン", 2, ["カー", "テ", "ン"]),
        ("one two three", 7, ["one two", "three"]),
        ("incomprehensible", 7, ["incomprehensible"]),
        ("", 7, [""]),
    ],
)
def test_wrapping(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


def test_columns() -> None:
    assert columns("aé") == 2
    assert columns("あＡ（") == 6
    assert columns("ｱ") == 1
