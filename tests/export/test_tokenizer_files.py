"""Unsupported settings in the tokenizer's files are reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.export import ExportOptions, export
from issun.export.template import ALPACA
from issun.export.tokenizer_files import report_unsupported
from issun.runtime.errors import Notify


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def notify(notices: list[str]) -> Notify:
    return lambda template, **values: notices.append(template.format(**values))


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    "name",
    [
        "LlamaTokenizer",
        "LlamaTokenizerFast",
        "AlbertTokenizer",
        "XLMRobertaTokenizer",
        "PreTrainedTokenizerFast",
    ],
)
def test_another_tokenizer_class_is_reported(
    tmp_path: Path, notices: list[str], notify: Notify, file: str, name: str
) -> None:
    write(tmp_path / file, {"tokenizer_class": name})
    report_unsupported(tmp_path, None, notify)
    assert notices == [
        f"{tmp_path / file}: tokenizer_class is {name}, but issun tokenizes as T5Tokenizer does: "
        "token ids may differ."
    ]


@pytest.mark.parametrize("name", [None, "T5Tokenizer", "T5TokenizerFast"])
def test_supported_tokenizer_classes_are_not_reported(
    tmp_path: Path, notices: list[str], notify: Notify, name: str | None
) -> None:
    config = {"tokenizer_class": name, "chat_template": None, "padding_side": "left"}
    write(tmp_path / "tokenizer_config.json", config)
    report_unsupported(tmp_path, ALPACA.name, notify)
    assert notices == []


def test_tokenizer_config_takes_precedence(
    tmp_path: Path, notices: list[str], notify: Notify
) -> None:
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    write(tmp_path / "config.json", {"tokenizer_class": "BertTokenizer"})
    report_unsupported(tmp_path, None, notify)
    assert notices == []


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"]
)
@pytest.mark.parametrize("value", ["{{ messages }}", [{"name": "default", "template": "{{ m }}"}]])
def test_a_chat_template_is_reported_unless_a_template_is_given(
    tmp_path: Path, notices: list[str], notify: Notify, name: str, value: Any
) -> None:
    write(tmp_path / name, {"chat_template": value})
    report_unsupported(tmp_path, "mine", notify)
    assert notices == [
        f"{tmp_path / name}: chat_template is ignored; prompts use the template mine. "
        "Give another with --template FILE."
    ]
    report_unsupported(tmp_path, None, notify)
    assert len(notices) == 1


def test_an_export_reports_both(
    checkpoint: Callable[[str], Path], tmp_path: Path, notices: list[str], notify: Notify
) -> None:
    source = shutil.copytree(checkpoint("head-8"), tmp_path / "source")
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ messages }}"}
    write(source / "tokenizer_config.json", config)
    export(source, tmp_path / "bundle", ExportOptions(precision="float32"), notify=notify)
    assert [line.partition(": ")[2].split()[:2] for line in notices] == [
        ["tokenizer_class", "is"],
        ["chat_template", "is"],
    ]
    assert ALPACA.name in notices[1]
