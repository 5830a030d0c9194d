"""Unsupported settings in the tokenizer's files are reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from issun.export.tokenizer import read_tokenizer
from issun.export.tokenizer_files import Choice, choose_tokenizer, report_tokenizer
from issun.runtime import BundleError
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
    ["AlbertTokenizer", "XLMRobertaTokenizer", "PreTrainedTokenizerFast"],
)
def test_another_tokenizer_class_is_reported(
    tmp_path: Path, notices: list[str], notify: Notify, file: str, name: str
) -> None:
    write(tmp_path / file, {"tokenizer_class": name})
    (tmp_path / "spiece.model").touch()
    report_tokenizer(tmp_path, choose_tokenizer(tmp_path), notify)
    assert notices == [
        f"{tmp_path / file}: tokenizer_class is {name.removesuffix('Fast')}, but issun tokenizes "
        "as T5Tokenizer does: token ids may differ."
    ]


@pytest.mark.parametrize(
    "name", [None, "T5Tokenizer", "T5TokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast"]
)
def test_supported_tokenizer_classes_are_not_reported(
    tmp_path: Path, notices: list[str], notify: Notify, name: str | None
) -> None:
    config = {"tokenizer_class": name, "chat_template": None, "padding_side": "left"}
    write(tmp_path / "tokenizer_config.json", config)
    (tmp_path / "tokenizer.model").touch()
    report_tokenizer(tmp_path, choose_tokenizer(tmp_path), notify)
    assert notices == []


@pytest.mark.parametrize("name", ["add_eos_token", "clean_up_tokenization_spaces"])
def test_settings_that_change_texts_are_reported(
    tmp_path: Path, notices: list[str], notify: Notify, name: str
) -> None:
    (tmp_path / "tokenizer.model").touch()
    for value in (False, True):
        write(tmp_path / "tokenizer_config.json", {name: value})
        report_tokenizer(tmp_path, choose_tokenizer(tmp_path), notify)
    assert [notice.split()[1:4] for notice in notices] == [[name, "is", "ignored:"]]


SLOW, FAST = "tokenizer.model", "tokenizer.json"


@pytest.mark.parametrize(
    ("files", "named", "model", "found"),
    [
        ([SLOW], None, "gpt2", (SLOW, "t5", "T5Tokenizer")),
        ([SLOW], None, "gpt_neox", (SLOW, "t5", "T5Tokenizer")),
        ([SLOW], None, "llama", (SLOW, "llama", "LlamaTokenizer")),
        ([SLOW], "LlamaTokenizer", "gpt2", (SLOW, "llama", "LlamaTokenizer")),
        ([SLOW], "LlamaTokenizerFast", "mistral", (SLOW, "llama", "LlamaTokenizer")),
        ([SLOW], "T5TokenizerFast", "gpt2", (SLOW, "t5", "T5Tokenizer")),
        ([SLOW, FAST], "T5Tokenizer", "gpt_neox", (SLOW, "t5", "T5Tokenizer")),
        ([SLOW, FAST], None, "gpt2", (SLOW, "t5", "T5Tokenizer")),
        ([SLOW, FAST], "T5TokenizerFast", "gpt2", (FAST, "json", "T5Tokenizer")),
        ([SLOW, FAST], "LlamaTokenizer", "llama", (FAST, "json", "LlamaTokenizer")),
        ([SLOW, FAST], None, "llama", (FAST, "json", "LlamaTokenizer")),
        ([FAST], "PreTrainedTokenizerFast", "llama", (FAST, "json", "PreTrainedTokenizer")),
        ([FAST], "T5Tokenizer", "gpt2", (FAST, "json", "T5Tokenizer")),
        ([FAST], None, "gpt2", (FAST, "json", "GPT2Tokenizer")),
        ([FAST], None, "gpt_neox", (FAST, "json", "GPTNeoXTokenizer")),
        ([FAST], None, "qwen3", (FAST, "json", "Qwen2Tokenizer")),
    ],
)
def test_the_tokenizer_is_the_one_that_transformers_opens(
    tmp_path: Path, files: list[str], named: str | None, model: str, found: tuple[str, ...]
) -> None:
    write(tmp_path / "config.json", {"model_type": model})
    if named:
        write(tmp_path / "tokenizer_config.json", {"tokenizer_class": named})
    for file in files:
        (tmp_path / file).touch()
    assert choose_tokenizer(tmp_path) == Choice(*found)


def test_tokenizer_config_takes_precedence(
    tmp_path: Path, notices: list[str], notify: Notify
) -> None:
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    write(tmp_path / "config.json", {"tokenizer_class": "BertTokenizer"})
    (tmp_path / "spiece.model").touch()
    report_tokenizer(tmp_path, choose_tokenizer(tmp_path), notify)
    assert notices == []


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    write(tmp_path / "tokenizer.json", {})
    with pytest.raises(BundleError, match=r'tokenizers: pip install "issun\[models\]"$'):
        read_tokenizer(tmp_path, 100)
