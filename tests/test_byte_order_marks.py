"""Every user-written file is read with or without a byte-order mark as Windows writes it."""

from __future__ import annotations

import codecs
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from issun.benchmarks.fidelity import load_text
from issun.benchmarks.measured import read_results
from issun.benchmarks.questions import read_table
from issun.cli.chat import _role
from issun.cli.generate import _schema
from issun.cli.serve import _key
from issun.export import ExportOptions, export
from issun.export.calibrate import NUM_WINDOWS_GPTQ, read_calibration_text
from issun.export.checkpoint import open_checkpoint
from issun.export.template import ALPACA, load_template
from issun.runtime import ParameterError
from issun.runtime.files import as_utf8, read_text
from issun.runtime.manifest import read_manifest
from issun.runtime.saved import SavedConversation, read_conversation
from issun.runtime.text.turn import Turn
from issun.training.data import read_records
from issun.training.errors import DataError
from tests.benchmarks.test_results import engine, made_up

# As editors and PowerShell write text: Python's "utf-16-le" adds no mark.
ENCODINGS = {
    "plain": (b"", "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16 LE": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16 BE": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-32 LE": (codecs.BOM_UTF32_LE, "utf-32-le"),
    "UTF-32 BE": (codecs.BOM_UTF32_BE, "utf-32-be"),
}
SCHEMA = {"type": "object", "properties": {"名": {"type": "string"}}}
RESULTS = made_up(engine())


def text_of(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1)


# reader: file name, text, how it is read, expected result
READERS: dict[str, tuple[str, str, Callable[[Path], Any], Any]] = {
    "text": ("a.txt", "富士山\r\n𠮷", read_text, "富士山\n𠮷"),
    "fidelity": ("a.txt", "富士山", lambda path: load_text(path)[1], "富士山"),
    "calibration": ("a.txt", "富士山\n", read_calibration_text, "富士山\n"),
    "role": ("a.txt", "User:猫\n", lambda path: _role(None, path), "User:猫\n"),
    "key": ("key", "hemlig鍵\n", lambda path: _key(None, path), "hemlig鍵"),
    "schema": ("a.json", text_of(SCHEMA), _schema, SCHEMA),
    "template": ("a.json", msgspec.json.encode(ALPACA).decode(), load_template, ALPACA),
    "table": (
        "a.toml",
        'role = ["User:猫"]\r\n[[questions]]\r\nquestion = "山は?"\r\nright = "富士山"\r\n',
        lambda path: (read_table(path).role, read_table(path).questions[0].right),
        (("User:猫",), ("富士山",)),
    ),
    "results": (
        "a.json",
        msgspec.json.encode(RESULTS).decode(),
        read_results,
        RESULTS,
    ),
    "conversation": (
        "a.json",
        msgspec.json.encode(SavedConversation.of(["役"], [Turn("山は?", "富士山")])).decode(),
        read_conversation,
        SavedConversation.of(["役"], [Turn("山は?", "富士山")]),
    ),
    "records as lines": (
        "a.jsonl",
        '{"instruction": "山は?", "output": "富士山"}\n{"message": "猫", "answer": "はい"}\n',
        lambda path: [record.line for record in read_records(path)],
        [1, 2],
    ),
    "records as a list": (
        "a.json",
        text_of([{"instruction": "山は?", "output": "富士山"}]),
        lambda path: "富士山" in read_records(path)[0].text,
        True,
    ),
    "records as text": (
        "a.txt",
        "<s>\\n山\\n</s>\n",
        lambda path: [record.text for record in read_records(path)],
        ["<s>\\n山\\n</s>"],
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("reader", READERS)
def test_what_a_user_wrote(tmp_path: Path, reader: str, encoding: str) -> None:
    name, text, read, expected = READERS[reader]
    path = tmp_path / name
    write(path, text, encoding)
    assert read(path) == expected


def write(path: Path, text: str, encoding: str) -> None:
    mark, codec = ENCODINGS[encoding]
    path.write_bytes(mark + text.encode(codec))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_files_of_a_checkpoint(
    checkpoint: Callable[[str], Path], tmp_path: Path, encoding: str
) -> None:
    source = shutil.copytree(checkpoint("bfloat16-sharded"), tmp_path / "checkpoint")
    named = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name, content in {
        "generation_config.json": {"temperature": 0.25},
        "special_tokens_map.json": {k: v for k, v in named.items() if k != "sep_token"},
    }.items():
        (source / name).write_text(text_of(content), encoding="utf-8")
    (source / "tokenizer_config.json").write_text('{"sep_token": "[SEP]"}', encoding="utf-8")
    names = sorted(path.name for path in source.glob("*.json"))
    assert len(names) == 5, "config, generation, two of the tokenizer, and the weights' index"
    for name in names:
        write(source / name, (source / name).read_text(encoding="utf-8"), encoding)
    opened = open_checkpoint(source)
    assert (opened.network.n_embd, len(opened.files)) == (104, 4)
    assert opened.tokenizer.tokens.sep == 5
    bundle = tmp_path / "bundle"
    assert (
        export(source, bundle, ExportOptions(precision="float32")).sampling["temperature"] == 0.25
    )
    write(bundle / "issun.json", (bundle / "issun.json").read_text(encoding="utf-8"), encoding)
    assert read_manifest(bundle).sampling["temperature"] == 0.25


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_long_calibration_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "long.txt"
    write(path, "日本で一番高い山は、富士山です。𠮷野家\n" * 20_000, encoding)
    assert path.stat().st_size > NUM_WINDOWS_GPTQ * 16_384
    text = read_calibration_text(path)
    assert text.startswith("日本で一番高い山は、")
    assert "\ufeff" not in text
    assert "\ufffd" not in text
    assert text.count("富士山です。𠮷野家") > 1000


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", b""),
        (b"a", b"a"),
        (b"\xef\xbb\xbf", b""),
        (b"\xef\xbb\xbf\xff", b"\xff"),  # not UTF-8: reported by the reader
        (b"\xff\xfea\x00", b"a"),
        (b"\xff\xfe\x00\x00a\x00\x00\x00", b"a"),
        (b"\x00\x00\xfe\xff\x00\x00\x00a", b"a"),
        ("a\ufeff".encode(), "a\ufeff".encode()),  # it is only a mark at the start
    ],
)
def test_marks_are_taken_off(raw: bytes, expected: bytes) -> None:
    assert as_utf8(raw) == expected


@pytest.mark.parametrize("raw", [b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\xfe\xff\xdc\x00\x00a"])
def test_damaged_text_behind_a_mark_is_one_line(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(raw)
    with pytest.raises(
        ParameterError, match=r"cannot be read: it is utf-16.*, and damaged \(byte \d+\)"
    ):
        read_text(path)
    with pytest.raises(
        DataError, match=r"cannot be read: it is utf-16.*, and damaged \(byte \d+\)"
    ):
        read_records(path)
