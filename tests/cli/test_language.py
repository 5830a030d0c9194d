"""Every message that the command line can show is in the catalogues, with the same fields."""

import ast
import gettext
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from issun.cli import language, reporting
from issun.cluster.errors import BatchError
from issun.runtime import BundleError, ContextError, ParameterError

pofile = pytest.importorskip("babel.messages.pofile")
frontend = pytest.importorskip("babel.messages.frontend")

ROOT = Path(__file__).parent.parent.parent
PO = language.CATALOGUES / "ja" / "LC_MESSAGES" / "issun.po"
TRANSLATED_CALLS = ("tr", "error_type", "mark", "note", "notify", "needs_extra")


def is_shown(name: str, package: str) -> bool:
    """True for an error that a person at the terminal reads; clients of the API read English.

    So do those of a batch, whose rows have the API's errors.
    """
    if package == "server":
        return name == "ServerError"
    return name.endswith("Error") and name not in ("ApiError", "InternalError")


def templates() -> Iterator[str]:
    """Every template in the source, found without Babel and its list of keywords."""
    for package in (
        "cli",
        "cluster",
        "runtime",
        "export",
        "kit",
        "benchmarks",
        "training",
        "server",
        "web",
    ):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name == "embedded":
                continue  # how the embedded model is made, which no command does
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args:
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    first = node.args[0]
                    if (
                        (name in TRANSLATED_CALLS or is_shown(name, package))
                        and isinstance(first, ast.Constant)
                        and isinstance(first.value, str)
                    ):
                        yield first.value


ALL = sorted(set(templates()))
CATALOGUE = pofile.read_po(PO.open("rb"), locale="ja")
MESSAGES = {message.id: message for message in CATALOGUE if message.id}
MEND = "run `make translations`, translate what is empty or fuzzy in the .po, and run it again"


def fields(template: str) -> set[tuple[str, str | None, str | None]]:
    """The fields with their format: a number must not lose its commas or its digits."""
    parsed = string.Formatter().parse(template)
    return {(name, form, conversion) for _, name, form, conversion in parsed if name}


def test_there_are_messages() -> None:
    assert len(ALL) > 400
    assert "The message is empty." in ALL
    assert "start a new conversation" in ALL


def test_every_message_is_translated() -> None:
    assert not [template for template in ALL if template not in MESSAGES], MEND
    messages = [MESSAGES[template] for template in ALL]
    assert not [one.id for one in messages if one.fuzzy or not one.string.strip()], MEND
    assert not [one.id for one in messages if fields(one.string) != fields(one.id)]


@pytest.mark.slow
def test_the_catalogue_is_what_babel_extracts(tmp_path: Path) -> None:
    """A new class of errors, or a new function for messages, belongs into pyproject.toml."""
    target = tmp_path / "issun.pot"
    command = ["pybabel", "-q", "extract", "-F", "pyproject.toml", "-o", str(target), "."]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        frontend.CommandLineInterface().run(command)
    with target.open("rb") as file:
        extracted = {message.id for message in pofile.read_po(file) if message.id}
    assert extracted == set(ALL)
    assert set(MESSAGES) == extracted, MEND


def test_no_entry_is_obsolete_or_fuzzy() -> None:
    assert not CATALOGUE.obsolete, MEND
    assert not [message.id for message in MESSAGES.values() if message.fuzzy], MEND


def test_the_compiled_catalogue_is_current() -> None:
    with PO.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for template, message in MESSAGES.items():
        assert compiled.gettext(template) == message.string, MEND
    assert len(compiled._catalog) == len(MESSAGES) + 1  # and the header


def test_errors_are_shown_in_the_reader_s_language(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ContextError(
        "{tokens:,} tokens do not fit into the context of {limit:,}.", tokens=1200, limit=1024
    )
    for code, expected in (
        ("en_US.UTF-8", "1,200 tokens do not fit into the context of 1,024."),
        ("ja_JP.UTF-8", "1,200 トークンは、コンテキスト長 1,024 に収まりません。"),
    ):
        monkeypatch.setenv("ISSUN_LANG", code)
        assert reporting.describe(error) == expected


def test_control_characters_are_not_printed() -> None:
    assert language.printable("a\x1b[31m\x07\u202eb\n\tc\x9b") == "a[31mb\n\tc"


def test_the_japanese_is_of_one_style() -> None:
    """Full-width brackets and punctuation, and one word for one thing."""
    code = re.compile(r"`[^`]*`|\{[^}]*\}|load\(trust=True\)")
    avoided = re.compile(
        r"[()]|[ぁ-んァ-ヶ一-龥][,!?]|命令|並べ替え|パソコン|答え|文脈|書き出し直|較正|校正|計測|ひな形|メモリ(?!ー)|サーバ(?!ー)"
        r"|[一二三四]つ|(?<!内蔵の)デモ用モデル"
    )
    found = {text: avoided.search(code.sub("", text)) for text in map(_string, MESSAGES.values())}
    assert not {text: match for text, match in found.items() if match}


def _string(message: Any) -> str:
    return str(message.string)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "a"),
            "a: ファイルまたはフォルダーがありません",
        ),
        (PermissionError(13, "Permission denied"), "アクセス権がありません"),
        (OSError(99, "another reason"), "another reason"),
        (
            ParameterError(
                "{path} cannot be read: {reason}", path="b", reason="it is not UTF-8 (byte 3)"
            ),
            "b を読めません: UTF-8 ではありません（3 バイト目）",
        ),
        (
            ParameterError("{path} cannot be read: {reason}", path="Is a directory", reason="x"),
            "Is a directory を読めません: x",
        ),
        (
            ParameterError(
                "The constraint cannot be used: {reason}", reason="regex: unclosed group"
            ),
            "この制約は使えません: 正規表現: 閉じていない括弧があります",
        ),
        (
            BundleError(
                "{path} is damaged ({reason}): export the bundle again.",
                path="a",
                reason="Input data was truncated",
            ),
            "a は壊れています（途中で切れています）。バンドルをエクスポートし直してください。",
        ),
        (
            BundleError(
                "{path}: {reason}", path="a", reason="Expected `int`, got `str` - at `$.x`"
            ),
            "a: `int` のはずが `str` です（`$.x`）",
        ),
        (
            BatchError(
                "{path} is of a run with another {part}: repeat that run, or delete the file to "
                "start again.",
                path="a.journal",
                part="kind of CPU",
            ),
            "a.journal は、CPU の種類が異なる実行のものです。"
            "その実行を続けるか、ファイルを削除して最初から始めてください。",
        ),
        (
            BatchError(
                "A worker has another {part} than the rest: {value} instead of {expected}.",
                part="KV cache",
                value="int8",
                expected="float32",
            ),
            "KV キャッシュがほかと異なるワーカーがあります: float32 ではなく int8 です。",
        ),
    ],
)
def test_reasons_are_translated(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISSUN_LANG", "ja")
    assert reporting.message_of(error) == expected
