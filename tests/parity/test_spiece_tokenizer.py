"""SentencePiece models as the slow T5Tokenizer and LlamaTokenizer of transformers read them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from issun.export.tokenizer import TokenizerSource, read_tokenizer
from issun.runtime.text.stream import make_detokenizer
from issun.runtime.text.tokenizer import Tokenizer
from tests.spiece_tokenizers import KINDS, write_folder
from tests.strings import generate_strings

pytestmark = pytest.mark.parity

Opened = tuple[TokenizerSource, Tokenizer, Any]


@pytest.fixture(scope="module", params=KINDS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> Opened:
    from transformers import AutoTokenizer

    folder = write_folder(request.param, lines[-600:], tmp_path_factory.mktemp(request.param))
    theirs = AutoTokenizer.from_pretrained(folder, use_fast=False)
    source = read_tokenizer(folder, len(theirs))
    return source, source.open(), theirs


@pytest.mark.sampled
def test_text_has_the_ids_of_the_slow_tokenizer(opened: Opened, lines: list[str]) -> None:
    _, ours, theirs = opened
    for text in [*lines, *generate_strings()]:
        if not any(token in text for token in ours.special):
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text


def test_special_tokens_count_where_they_are_asked_for(opened: Opened) -> None:
    _, ours, theirs = opened
    for text in _mixed(theirs, 1000):
        want = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, special=True) == want, text
        assert ours.encode_parts(ours.split(text)) == want, text


def test_a_raw_text_begins_as_with_transformers(opened: Opened) -> None:
    source, ours, theirs = opened
    ids = [*source.tokens.begin, *ours.encode("猫は")]
    assert ids == [i for i in theirs.encode("猫は") if i != theirs.eos_token_id]


def test_user_text_never_becomes_a_control_token(opened: Opened) -> None:
    source, ours, theirs = opened
    control = {*ours.special.values()} - {source.tokens.unk}
    assert control
    for text in _mixed(theirs, 300):
        assert not control.intersection(ours.encode(text)), text


def test_ids_have_the_text_of_the_slow_tokenizer(opened: Opened) -> None:
    """T5Tokenizer also strips the text, which a stream has returned already."""
    source, ours, theirs = opened
    for ids in _random_ids(theirs, 2000):
        want, got = theirs.decode(ids, skip_special_tokens=True), ours.decode(ids)
        assert got == want or (source.tokens.kind == "t5" and got.strip() == want), ids


def test_streams_join_to_the_whole_text(opened: Opened) -> None:
    _, ours, theirs = opened
    for ids in _random_ids(theirs, 2000):
        stream = make_detokenizer(ours)
        assert "".join(map(stream.push, ids)) + stream.finish() == ours.decode(ids), ids


def _mixed(theirs: Any, count: int) -> list[str]:
    """Texts with many special and added tokens, and spaces next to them."""
    rng, names = random.Random(1), list(theirs.get_added_vocab())
    texts = [" ", "猫", "  a", "x ", "▁", "日本 の", "\n", *generate_strings(300)]
    return [
        "".join(rng.choice(names if rng.random() < 0.4 else texts) for _ in range(5))
        for _ in range(count)
    ]


def _random_ids(theirs: Any, count: int) -> list[list[int]]:
    """Random ids, among which bytes, control tokens and added tokens are frequent."""
    rng, added = random.Random(2), list(theirs.get_added_vocab().values())
    makers = (
        lambda: rng.randrange(len(theirs)),
        lambda: rng.randrange(3, 259),
        lambda: rng.choice(added),
    )
    return [
        [rng.choice(makers[: 1 + 2 * (number % 2)])() for _ in range(rng.randrange(1, 12))]
        for number in range(count)
    ]


@pytest.mark.sampled
@pytest.mark.parametrize("prefix_space", [None, True, False])
@pytest.mark.parametrize("name", ["llama-bpe", "llama-bpe-later", "llama-unigram-later"])
def test_a_saved_fast_tokenizer_is_preferred(
    tmp_path: Path, lines: list[str], name: str, prefix_space: bool | None
) -> None:
    """transformers converts it anew if add_prefix_space is set, with the same result."""
    from transformers import AutoTokenizer, LlamaTokenizerFast

    for part in ("slow", "both"):
        (tmp_path / part).mkdir()
    slow = write_folder(name, lines[-600:], tmp_path / "slow")
    fast = LlamaTokenizerFast.from_pretrained(slow, add_prefix_space=prefix_space)
    fast.save_pretrained(tmp_path / "both")
    (tmp_path / "both" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert (tmp_path / "both" / "tokenizer.model").is_file()
    theirs = AutoTokenizer.from_pretrained(tmp_path / "both")
    source = read_tokenizer(tmp_path / "both", len(theirs))
    ours = source.open()
    assert source.tokens.kind == "json"
    for text in [*lines[-200:], *generate_strings(500)]:
        if not any(token in text for token in ours.special):
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    for text in _mixed(theirs, 200):
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, special=True) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
