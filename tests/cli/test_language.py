"""Every message has a Japanese form with the same fields."""

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from issun.cli import language
from issun.cli.japanese import JAPANESE
from issun.runtime import ContextError

ROOT = Path(__file__).parent.parent.parent
TRANSLATED_CALLS = ("tr", "note", "notify", "needs_extra")


def is_told(name: str, package: str) -> bool:
    """True for an error that a person at the terminal reads; clients get the dialect's English."""
    return name.endswith("Error") and (package != "server" or name == "ServerError")


def templates() -> Iterator[str]:
    for package in ("cli", "runtime", "export", "kit", "benchmarks", "training", "server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and node.args:
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    first = node.args[0]
                    if (
                        (name in TRANSLATED_CALLS or is_told(name, package))
                        and isinstance(first, ast.Constant)
                        and isinstance(first.value, str)
                    ):
                        yield first.value
                if isinstance(node, ast.Dict) and path.name == "commands.py":
                    for value in node.values:
                        if isinstance(value, ast.Tuple) and isinstance(value.elts[0], ast.Constant):
                            yield value.elts[0].value


ALL = sorted(set(templates()) - {"{text}"})


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_there_are_messages() -> None:
    assert len(ALL) > 100
    assert "The message is empty." in ALL
    assert "forget all turns" in ALL


@pytest.mark.parametrize("template", ALL)
def test_every_message_is_translated(template: str) -> None:
    assert template in JAPANESE
    assert fields(JAPANESE[template]) == fields(template)


def test_no_translation_is_left_over() -> None:
    labels = {"bundle", "source", "exporter", "network", "precision", "  linears", "  embedding"}
    labels |= {"  head", "KV cache", "tokenizer", "prompt", "sampling", "fidelity", "calibration"}
    labels |= {"end tokens"}
    assert set(JAPANESE) - set(ALL) <= labels


def test_errors_are_told_in_the_reader_s_language(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ContextError(
        "{tokens:,} tokens do not fit into the context of {limit:,}.", tokens=1200, limit=1024
    )
    for code, expected in (
        ("en_US.UTF-8", "1,200 tokens do not fit into the context of 1,024."),
        ("ja_JP.UTF-8", "1,200 トークンは文脈長 1,024 に収まりません。"),
    ):
        monkeypatch.setenv("ISSUN_LANG", code)
        language.is_japanese.cache_clear()
        assert language.describe(error) == expected
    language.is_japanese.cache_clear()


def test_control_characters_are_not_printed() -> None:
    assert language.printable("a\x1b[31m\x07\u202eb\n\tc\x9b") == "a[31mb\n\tc"
