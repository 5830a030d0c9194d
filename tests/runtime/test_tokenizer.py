"""Ids as transformers' slow T5Tokenizer assigns them; special tokens only on request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks.small_tokenizers import vocabulary_text
from issun.export.added import SPECIAL_ROLES
from issun.runtime import BundleError, ParameterError
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from tests import recordings as rec
from tests.special_ids import assign_special_ids
from tests.strings import SPECIAL, generate_strings

RECORDED = json.loads((rec.RECORDED / "tokenizers.json").read_text(encoding="utf-8"))
CASES = [(name, case) for name in rec.TOKENIZERS for case in ("plain", "lower")]
BY_ROLE = dict(
    zip(SPECIAL_ROLES, ("<s>", "</s>", "<unk>", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), strict=True)
)


def open_tokenizer(file: Path, *, do_lower_case: bool = False) -> SentencePieceTokenizer:
    special = assign_special_ids(file, list(BY_ROLE.values()))
    return SentencePieceTokenizer(file, special, do_lower_case=do_lower_case)


@pytest.fixture(scope="module")
def recorded_tokenizer(shared: Path) -> Callable[[str, str], SentencePieceTokenizer]:
    def make(name: str, case: str) -> SentencePieceTokenizer:
        return open_tokenizer(shared / rec.TOKENIZERS[name], do_lower_case=case == "lower")

    return make


@pytest.fixture(scope="module")
def tokenizer(spiece: Path) -> SentencePieceTokenizer:
    return open_tokenizer(spiece)


# Against transformers


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_line_has_the_ids_of_transformers(
    recorded_tokenizer: Callable[[str, str], SentencePieceTokenizer],
    shared: Path,
    name: str,
    case: str,
) -> None:
    tokenizer, expected = recorded_tokenizer(name, case), RECORDED[name][case]["texts"]
    assert len(expected) == len(rec.TEXTS)
    for text in rec.TEXTS:
        lines = rec.lines_of(shared / "data" / "text" / text)
        ids = [tokenizer.encode(line, special=True) for line in lines]
        assert rec.digest(ids) == expected[text], text


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_generated_string_has_the_ids_of_transformers(
    recorded_tokenizer: Callable[[str, str], SentencePieceTokenizer], name: str, case: str
) -> None:
    tokenizer, expected = recorded_tokenizer(name, case), RECORDED[name][case]["strings"]
    ids = [tokenizer.encode(text, special=True) for text in generate_strings()]
    digests = [rec.digest(ids[i : i + rec.BLOCK]) for i in range(0, len(ids), rec.BLOCK)]
    assert len(digests) == 20
    assert digests == expected


def test_recordings_distinguish_the_cases() -> None:
    digests = {RECORDED[name][case]["strings"][3] for name, case in CASES}
    assert len(digests) == len(CASES)


# Special tokens


@given(st.lists(st.sampled_from([*SPECIAL, "猫", " ", "</", "s>", "\n"])).map("".join))
def test_text_never_becomes_a_special_token(tokenizer: SentencePieceTokenizer, text: str) -> None:
    special = set(tokenizer.special.values()) - {tokenizer.special["<unk>"]}
    assert not special & set(tokenizer.encode(text))


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_are_found_on_request(tokenizer: SentencePieceTokenizer, token: str) -> None:
    text, found = f"猫{token}は", tokenizer.special[token]
    assert tokenizer.encode(text, special=True) == [
        *tokenizer.encode("猫"),
        found,
        *tokenizer.encode("は"),
    ]
    if token != "<unk>":
        assert found not in tokenizer.encode(text)


def test_ids_of_special_tokens_are_those_of_the_file(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.special == {
        "[CLS]": 0,
        "<unk>": 1,
        "<s>": 2,
        "</s>": 3,
        "[PAD]": 4,
        "[SEP]": 5,
        "[MASK]": 6,
    }


def test_special_tokens_missing_from_the_file_get_ids_after_its_pieces(shared: Path) -> None:
    special = assign_special_ids(shared / rec.TOKENIZERS["test_ja_model"], list(BY_ROLE.values()))
    assert special == {
        "<s>": 1,
        "</s>": 2,
        "<unk>": 0,
        "[SEP]": 8000,
        "[PAD]": 8001,
        "[CLS]": 8002,
        "[MASK]": 8003,
    }


# Unusual text


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("surrogate", ["\ud800", "\udfff", "\udc80"])
def test_lone_surrogate_is_the_replacement_character(
    tokenizer: SentencePieceTokenizer, surrogate: str, special: bool
) -> None:
    expected = tokenizer.encode("猫\ufffdは", special=special)
    assert tokenizer.encode(f"猫{surrogate}は", special=special) == expected
    assert tokenizer.encode("猫は", special=special) != expected


def test_pair_of_surrogates_is_its_character(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("猫\ud83d\ude00") == tokenizer.encode("猫😀")


def test_capital_sigma_is_never_the_final_one(shared: Path) -> None:
    tokenizer = open_tokenizer(shared / rec.TOKENIZERS["google_sp"], do_lower_case=True)
    assert tokenizer.encode("ΑΣ") == tokenizer.encode("ας".replace("ς", "σ"))
    assert tokenizer.encode("ABC") == tokenizer.encode("abc")


def test_empty_text_has_no_ids(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.encode("") == tokenizer.encode("", special=True) == []


# Decoding


def test_decoding_omits_control_tokens_and_unknown(tokenizer: SentencePieceTokenizer) -> None:
    ids = [2, *tokenizer.encode("富士山は"), 1, 5, *tokenizer.encode("山です。"), 3]
    assert tokenizer.decode(ids) == "富士山は 山です。"


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_that_is_not_a_token_is_an_error_with_the_range(
    tokenizer: SentencePieceTokenizer, token: int
) -> None:
    with pytest.raises(ParameterError, match=f"{token}.*0 to {tokenizer.num_pieces - 1}"):
        tokenizer.decode([token])


def test_an_invalid_sentencepiece_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    path.write_text("not a model")
    with pytest.raises(BundleError, match="not a SentencePiece model"):
        SentencePieceTokenizer(path, {})


def test_special_tokens_that_the_file_knows_as_text(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(vocabulary_text().splitlines()),
            model_writer=file,
            vocab_size=400,
            hard_vocab_limit=False,
            user_defined_symbols=["[SEP]"],
            minloglevel=2,
        )
    sep = sentencepiece.SentencePieceProcessor(model_file=str(path)).piece_to_id("[SEP]")
    tokenizer = SentencePieceTokenizer(path, {"[SEP]": sep})
    for text in ("あ[SEP]い", "[SEP]", "[SEP][SEP]", "［ＳＥＰ］"):
        assert sep not in tokenizer.encode(text)
    assert tokenizer.encode("あ[SEP]い", special=True).count(sep) == 1
