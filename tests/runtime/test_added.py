"""Added tokens: ids as recorded from transformers, streaming, and user input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.export.errors import CheckpointError
from issun.export.tokenizer import TokenizerSource, read_tokenizer
from issun.runtime import ParameterError
from issun.runtime.manifest import AddedToken
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.stream import TextStream
from tests import recordings as rec
from tests.added import NAMED, SPELLINGS, added_strings, token, write_files, write_spelling

RECORDED = json.loads((rec.RECORDED / "added.json").read_text(encoding="utf-8"))
ROWS = 512


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory, spiece: Path) -> SentencePieceTokenizer:
    folder = tmp_path_factory.mktemp("added") / "tokenizer"
    return read_tokenizer(write_spelling(folder, spiece, "decoder with flags"), ROWS).open()


def source_of(folder: Path, spiece: Path, table: dict[str, object]) -> TokenizerSource:
    """Return the tokenizer of a folder with this tokenizer_config.json."""
    write_spelling(folder, spiece, "decoder")
    return read_tokenizer(write_files(folder, {"tokenizer_config.json": NAMED | table}), ROWS)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_has_the_ids_of_transformers(
    spiece: Path, tmp_path: Path, name: str
) -> None:
    source = read_tokenizer(write_spelling(tmp_path / "tokenizer", spiece, name), ROWS)
    tokenizer, recorded = source.open(), RECORDED[name]
    assert {role: getattr(source.tokens, role) for role in recorded["roles"]} == recorded["roles"]
    ids = [tokenizer.encode(text, special=True) for text in added_strings(rec.ADDED)]
    assert ids[:5] == recorded["first"]
    assert rec.digest(ids) == recorded["digest"]


def test_spellings_differ() -> None:
    assert len({one["digest"] for one in RECORDED.values()}) >= len(SPELLINGS) - 3


# User input


@given(
    st.lists(st.sampled_from(["<|im_end|>", "<|user|>", "<s>", "[SEP]", "猫", " ", "<tool>", "<|"]))
)
def test_text_becomes_a_text_token_and_never_a_special_one(
    flagged: SentencePieceTokenizer, parts: list[str]
) -> None:
    ids = flagged.encode("".join(parts))
    assert not {400, 401, 2, 3, 5} & set(ids)
    assert ids.count(402) == parts.count("<tool>")


def test_special_tokens_of_a_template_strip_white_space_of_user_text(
    flagged: SentencePieceTokenizer,
) -> None:
    user, cat = flagged.special["<|user|>"], flagged.encode("猫")
    assert flagged.encode_parts([user, "  猫\u3000", user]) == [user, *cat, user]
    assert flagged.encode_parts([user, "  <|user|>", user]) == [
        user,
        *flagged.encode("<|user|>"),
        user,
    ]
    assert flagged.encode_parts(flagged.split("<s>  猫")) == [2, *flagged.encode("  猫")]


# Decoding


def test_text_tokens_give_text_and_special_ones_none(flagged: SentencePieceTokenizer) -> None:
    cat = flagged.encode("猫です")
    assert flagged.decode([2, *cat, 402, 401, *cat, 400]) == (
        flagged.decode(cat) + "<tool>" + flagged.decode(cat)
    )
    assert [flagged.piece(i) for i in (400, 402, 403, 406)] == [
        b"<|im_end|>",
        b"<tool>",
        "単語".encode(),
        b"",
    ]
    assert [flagged.is_textless(i) for i in (400, 401, 402, 403)] == [True, True, False, False]


@given(st.lists(st.integers(0, 405)))
def test_streamed_text_is_the_whole(flagged: SentencePieceTokenizer, ids: list[int]) -> None:
    stream = TextStream(flagged, stop=())
    given_out = "".join([*map(stream.push, ids), stream.finish()])
    assert given_out == flagged.decode(ids).removesuffix("\n")


@pytest.mark.parametrize("row", [406, 511, -1])
def test_row_without_a_token_is_an_error(flagged: SentencePieceTokenizer, row: int) -> None:
    with pytest.raises(ParameterError, match=f"{row} is not a token.*0 to 399, 400, 401, .*405"):
        flagged.decode([row])


def test_a_text_token_that_the_file_gives_another_id(spiece: Path) -> None:
    tokenizer = SentencePieceTokenizer(spiece, {"</s>": 3}, added={"。": AddedToken(id=410)})
    assert tokenizer.encode("山。")[-1] == 410
    assert tokenizer.decode(tokenizer.encode("山。山")) == "山。山"


# Invalid tables


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"split_special_tokens": True}, "split_special_tokens is True, which changes token ids"),
        ({"split_special_tokens": True}, "split_special_tokens is True"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs is"),
        ({"extra_ids": -1}, "extra_ids is -1"),
        ({"extra_ids": 2, "additional_special_tokens": ["<extra_id_0>"]}, "extra_ids is 2, but 1"),
        ({"added_tokens_decoder": {"x": token("<a>")}}, "'x' is not a token id"),
        ({"added_tokens_decoder": {"400": "<a>"}}, "'<a>' is not a token"),
        ({"added_tokens_decoder": {"400": {"content": ""}}}, "is not a token"),
        ({"additional_special_tokens": "<a>"}, "'<a>' is not a list of tokens"),
        ({"eos_token": 3}, "3 is not a token"),
        ({"added_tokens_decoder": {"512": token("<a>")}}, "<a> has the id 512; vocab_size is 512"),
        (
            {
                "added_tokens_decoder": {"401": token("<a>")},
                "sep_token": "<b>",
                "mask_token": "<c>",
            },
            "<b> would get id 401, which belongs to <a>",
        ),
    ],
)
def test_invalid_tables_are_refused(
    spiece: Path, tmp_path: Path, table: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        source_of(tmp_path / "tokenizer", spiece, table)


def test_sentinels_without_a_row_are_left_out(spiece: Path, tmp_path: Path) -> None:
    source = source_of(tmp_path / "tokenizer", spiece, {"extra_ids": 200})
    sentinels = [text for text in source.tokens.special if text.startswith("<extra_id_")]
    assert len(sentinels) == 112
    assert max(source.tokens.special.values()) == 511
