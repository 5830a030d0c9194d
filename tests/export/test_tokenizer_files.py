"""What the files beside the tokenizer ask for that an export does not follow: it is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.export import ExportOptions, export
from issun.export.template import ALPACA
from issun.export.tokenizer_files import report_not_followed
from issun.runtime.errors import Notify


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def notify(told: list[str]) -> Notify:
    return lambda template, **values: told.append(template.format(**values))


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
def test_another_class_of_tokenizer_is_named(
    tmp_path: Path, told: list[str], notify: Notify, file: str, name: str
) -> None:
    write(tmp_path / file, {"tokenizer_class": name})
    report_not_followed(tmp_path, None, notify)
    assert told == [
        f"{tmp_path / file}: tokenizer_class is {name}, and issun reads text as T5Tokenizer does: "
        "ids may differ."
    ]


@pytest.mark.parametrize("name", [None, "T5Tokenizer", "T5TokenizerFast"])
def test_what_asks_for_nothing_is_not_named(
    tmp_path: Path, told: list[str], notify: Notify, name: str | None
) -> None:
    config = {"tokenizer_class": name, "chat_template": None, "padding_side": "left"}
    write(tmp_path / "tokenizer_config.json", config)
    report_not_followed(tmp_path, ALPACA.name, notify)
    assert told == []


def test_the_tokenizer_s_own_file_says_its_class(
    tmp_path: Path, told: list[str], notify: Notify
) -> None:
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    write(tmp_path / "config.json", {"tokenizer_class": "BertTokenizer"})
    report_not_followed(tmp_path, None, notify)
    assert told == []


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"]
)
@pytest.mark.parametrize("value", ["{{ messages }}", [{"name": "default", "template": "{{ m }}"}]])
def test_a_chat_template_is_named_unless_prompts_have_another(
    tmp_path: Path, told: list[str], notify: Notify, name: str, value: Any
) -> None:
    write(tmp_path / name, {"chat_template": value})
    report_not_followed(tmp_path, "mine", notify)
    assert told == [
        f"{tmp_path / name}: the chat_template is not read; prompts follow the template mine. "
        "--template FILE gives another."
    ]
    report_not_followed(tmp_path, None, notify)
    assert len(told) == 1


def test_an_export_tells(
    checkpoint: Callable[[str], Path], tmp_path: Path, told: list[str], notify: Notify
) -> None:
    source = shutil.copytree(checkpoint("head-8"), tmp_path / "source")
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ messages }}"}
    write(source / "tokenizer_config.json", config)
    export(source, tmp_path / "bundle", ExportOptions(precision="float32"), notify=notify)
    assert [line.partition(": ")[2].split()[:2] for line in told] == [
        ["tokenizer_class", "is"],
        ["the", "chat_template"],
    ]
    assert ALPACA.name in told[1]
