"""A tokenizer.json in a bundle: damaged files, missing packages, and tokens in user text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks.small_tokenizers import vocabulary_text
from issun.export.tokenizer import TokenizerSource, read_tokenizer
from issun.export.tokenizer_json import read_json_tokenizer
from issun.runtime import BundleError, ParameterError
from issun.runtime.text.json_tokenizer import HIDDEN, JsonTokenizer, byte_alphabet
from issun.runtime.text.tokenizer import Tokenizer, load_tokenizer, open_tokenizer
from tests.json_tokenizers import write_folder

pytest.importorskip("tokenizers")
NAMES = ("<|im_start|>", "<|im_end|>", "<think>")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TokenizerSource:
    folder = write_folder("qwen", vocabulary_text().splitlines(), tmp_path_factory.mktemp("qwen"))
    return read_tokenizer(folder, 4096)


@pytest.fixture(scope="module")
def tokenizer(source: TokenizerSource) -> Tokenizer:
    return source.open()


def test_the_bundle_has_a_file_of_its_own(source: TokenizerSource, tmp_path: Path) -> None:
    assert source.tokens.file == "tokenizer.json"
    (tmp_path / source.tokens.file).write_bytes(source.content)
    loaded = load_tokenizer(tmp_path, source.tokens)
    text = "<|im_end|>富士山<think>"
    for special in (False, True):
        assert loaded.encode(text, special=special) == source.open().encode(text, special=special)


def test_control_tokens_with_and_without_a_text(source: TokenizerSource) -> None:
    tokenizer, tokens = source.open(), source.tokens
    assert {*NAMES, "</think>", "<tool_call>", "<|endoftext|>"} == tokens.special.keys()
    ids = tokenizer.encode("<think>富士山</think><|im_end|>", special=True)
    assert ids[0] == tokens.special["<think>"]
    assert ids[-2:] == [tokens.special["</think>"], tokens.special["<|im_end|>"]]
    assert tokenizer.decode(ids) == "<think>富士山</think>"
    assert [tokenizer.is_textless(i) for i in ids[-2:]] == [False, True]
    assert tokens.eos == tokens.special["<|im_end|>"]


@given(st.lists(st.sampled_from([*NAMES, HIDDEN, HIDDEN[0], HIDDEN[1], "猫", " "])).map("".join))
def test_text_never_becomes_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    control = {*tokenizer.special.values()}
    assert control.isdisjoint(tokenizer.encode(text))
    begin = tokenizer.special["<|im_start|>"]
    ids = tokenizer.encode_parts([begin, text, begin])
    assert (ids[0], ids[-1]) == (begin, begin)
    assert control.isdisjoint(ids[1:-1])


def test_lone_surrogates_are_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("猫\ud800") == tokenizer.encode("猫\ufffd")
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_that_is_not_a_token_is_an_error(tokenizer: Tokenizer, token: int) -> None:
    with pytest.raises(ParameterError, match=f"The id {token} is not a token"):
        tokenizer.decode([token])
    assert tokenizer.piece(token) == b""


def test_a_missing_package_is_named(
    source: TokenizerSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BundleError, match=r'tokenizers: pip install "issun\[models\]"$'):
        open_tokenizer(source.content, source.tokens)
    with pytest.raises(BundleError, match=r'tokenizers: pip install "issun\[models\]"$'):
        read_json_tokenizer(source.path, "", 10_000)


def test_every_byte_has_the_character_of_byte_level_bpe() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = byte_alphabet()
    assert sorted(alphabet) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert list(alphabet.values()) == list(range(256))
    assert (alphabet["a"], alphabet["Ġ"]) == (ord("a"), ord(" "))


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, Change] = {
    "no model": lambda described: described.pop("model"),
    "another model": lambda described: described.update(model={"type": "Nothing"}),
    "a vocabulary that is no table": lambda described: described["model"].update(vocab=3),
    "merges of unknown pieces": lambda described: described["model"]["merges"].append(["ab", "?"]),
    "a negative id": lambda described: described["model"]["vocab"].update({"zz": -1}),
    "an invalid pattern": lambda described: described.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}
    ),
    "a damaged table of characters": lambda described: described.update(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_damaged_file_is_an_error_of_one_line(source: TokenizerSource, name: str) -> None:
    described = json.loads(source.content)
    CHANGES[name](described)
    content = json.dumps(described).encode()
    with pytest.raises(BundleError, match=r"^tokenizer\.json is not a valid tokenizer\.json: .+$"):
        JsonTokenizer(content, source.tokens.special).encode("富士山")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{}", b"[" * 100_000, b'{"a":' * 100_000], ids=range(5)
)
def test_what_is_no_tokenizer_is_an_error_of_one_line(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"is not a valid tokenizer\.json: .{5,300}$"):
        JsonTokenizer(content, {})


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate((128 << 20) + 1)
    with pytest.raises(BundleError, match=r"larger than a tokenizer\.json can be"):
        JsonTokenizer(path, {})
