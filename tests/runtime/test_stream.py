"""Streamed pieces join to the decoded text of the whole, however it is split."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from issun.benchmarks.small_tokenizers import vocabulary_text
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.runtime.text.stream import Detokenizer, Offsets, TextStream, partial_suffix

Opened = Callable[[str], SentencePieceTokenizer]

relaxed = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Pieces:
    """A tokenizer whose token i is the i-th of some strings."""

    byte_level = whole_runs = False

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(self.pieces[i] for i in ids)

    def is_byte(self, token: int) -> bool:
        return False


def train(path: Path, **options: Any) -> Path:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(vocabulary_text().splitlines()),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, spiece: Path, request: Any) -> Opened:
    """`opened(name)`: one of the tokenizers that the tests use."""
    folder = tmp_path_factory.mktemp("stream")

    @cache
    def open_tokenizer(name: str) -> SentencePieceTokenizer:
        special = {"<unk>": 0, "<s>": 1, "</s>": 2}
        if name == "small":
            return SentencePieceTokenizer(
                spiece, {"[CLS]": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "[SEP]": 5}
            )
        if name == "bytes":
            path = train(
                folder / name, vocab_size=1000, byte_fallback=True, character_coverage=0.98
            )
            return SentencePieceTokenizer(path, special)
        if name == "spaces":  # keeps all white space, and adds no prefix
            path = train(
                folder / name,
                vocab_size=1000,
                byte_fallback=True,
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                normalization_rule_name="identity",
                user_defined_symbols=["\n", "\ufffd", "▁▁"],
            )
            return SentencePieceTokenizer(path, special)
        shared = request.getfixturevalue("shared")
        return SentencePieceTokenizer(shared / "data" / "tokenizers" / f"{name}.model", special)

    return open_tokenizer


every_tokenizer = pytest.mark.parametrize(
    "name", ["small", "bytes", "spaces", "test_ja_model", "google_sp"]
)


def draw_ids(data: st.DataObject, tokenizer: SentencePieceTokenizer) -> list[int]:
    """Draw random ids, many of them bytes and special tokens; or ids of a text, split anywhere."""
    if data.draw(st.booleans()):
        text = data.draw(st.text(max_size=12) | st.text("あ😀 \nが日本é\ufffd▁", max_size=12))
        ids = tokenizer.encode(text)
        return ids[: data.draw(st.integers(0, len(ids)))]
    ordinary = st.integers(0, tokenizer.num_pieces - 1)
    return data.draw(st.lists(ordinary | st.sampled_from(odd_ids(tokenizer)), max_size=16))


@cache
def odd_ids(tokenizer: SentencePieceTokenizer) -> list[int]:
    """Return bytes, and pieces that have no text by themselves."""
    return [
        i for i in range(tokenizer.num_pieces) if tokenizer.is_byte(i) or not tokenizer.decode([i])
    ]


def stream_all(stream: TextStream, ids: Sequence[int]) -> list[str]:
    return [*(stream.push(i) for i in ids), stream.finish()]


def whole_text(text: str, newline: str = "", stop: Sequence[str] = ()) -> tuple[str, bool]:
    """Return the text that TextStream's docstring describes, and whether a stop string ended it."""
    if newline:
        text = text.replace(newline, "\n")
    for end in range(len(text) + 1):
        ended = [s for s in stop if text[:end].endswith(s)]
        if ended:
            return text[: end - max(map(len, ended))].removesuffix("\n"), True
    return text.removesuffix("\n"), False


# --- Detokenizer ---


@every_tokenizer
@relaxed
@given(data=st.data())
def test_pieces_join_to_the_whole(opened: Opened, name: str, data: st.DataObject) -> None:
    tokenizer = opened(name)
    ids = draw_ids(data, tokenizer)
    detokenizer = Detokenizer(tokenizer)
    pieces = [*(detokenizer.push(i) for i in ids), detokenizer.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)


@every_tokenizer
@relaxed
@given(data=st.data())
def test_returned_text_is_a_prefix_of_the_whole(
    opened: Opened, name: str, data: st.DataObject
) -> None:
    tokenizer = opened(name)
    ids = draw_ids(data, tokenizer)
    detokenizer, given_out = Detokenizer(tokenizer), ""
    for count, token in enumerate(ids, 1):
        given_out += detokenizer.push(token)
        now = tokenizer.decode(ids[:count])
        assert now.startswith(given_out)
        # Only the bytes of an incomplete character are held back.
        assert set(now[len(given_out) :]) <= {"\ufffd"}


def test_a_multi_byte_character_is_returned_whole(opened: Opened) -> None:
    tokenizer = opened("bytes")
    ids = tokenizer.encode("猫😀猫")
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(i) for i in ids]
    assert sum(tokenizer.is_byte(i) for i in ids) >= 4
    assert "😀" in pieces
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == "猫😀猫"


def test_an_incomplete_character_is_returned_at_the_end(opened: Opened) -> None:
    tokenizer = opened("bytes")
    ids = tokenizer.encode("😀")[:-1]
    detokenizer = Detokenizer(tokenizer)
    assert "".join(detokenizer.push(i) for i in ids) == ""
    assert detokenizer.finish() == tokenizer.decode(ids)
    assert set(tokenizer.decode(ids)) == {"\ufffd"}


def test_a_control_token_between_bytes_has_no_effect(opened: Opened) -> None:
    tokenizer = opened("bytes")
    ids = tokenizer.encode("😀")
    ids.insert(-1, tokenizer.special["<s>"])
    detokenizer = Detokenizer(tokenizer)
    pieces = [*(detokenizer.push(i) for i in ids), detokenizer.finish()]
    assert "".join(pieces) == tokenizer.decode(ids) == "😀"


def test_spaces_inside_stay_and_the_first_goes(opened: Opened) -> None:
    tokenizer = opened("small")
    ids = tokenizer.encode("User: a b")
    detokenizer = Detokenizer(tokenizer)
    assert "".join(detokenizer.push(i) for i in ids) == "User: a b"


# --- Offsets ---


@every_tokenizer
@relaxed
@given(data=st.data())
def test_offsets_are_where_tokens_begin_in_the_text(
    opened: Opened, name: str, data: st.DataObject
) -> None:
    tokenizer = opened(name)
    ids = draw_ids(data, tokenizer)
    text, offsets = tokenizer.decode(ids), Offsets(tokenizer, start=7)
    for index, token in enumerate(ids):
        before, start = tokenizer.decode(ids[:index]), offsets.next(token) - 7
        if tokenizer.is_byte(token):  # perhaps within a character
            assert before.startswith(text[:start])
            assert set(before[start:]) <= {"\ufffd"}
        elif not tokenizer.is_textless(token):
            assert before == text[:start]


@pytest.mark.parametrize("pieces", [["ab", "NL", "c", "d"], ["ab", "N", "L", "c", "d"]])
def test_offsets_count_a_newline_as_it_is_shown(pieces: list[str]) -> None:
    offsets = Offsets(Pieces(*pieces), "NL")  # type: ignore[arg-type]
    assert [offsets.next(i) for i in range(len(pieces))][-2:] == [3, 4]


class Spellings:
    """A tokenizer of byte-level BPE whose token i is the i-th of some bytes; None is special."""

    byte_level = True

    def __init__(self, *spellings: bytes | None) -> None:
        self.spellings = spellings

    def is_textless(self, token: int) -> bool:
        return self.spellings[token] is None

    def piece(self, token: int) -> bytes:
        return self.spellings[token] or b"</s>"


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        ([b"a", b"\xe3\x81", b"\x82", b"b"], [0, 1, 1, 2]),
        ([b"a", b"\xe3\x81", b"b", b"c"], [0, 1, 2, 3]),  # a, \ufffd, b, c
        ([b"a", b"\xe3\x81", b"\xe3\x81\x82", b"c"], [0, 1, 2, 3]),
        ([b"a", b"\xe3\x81", None, b"\x82b", b"c"], [0, 1, 1, 1, 3]),
    ],
)
def test_offsets_count_what_replaces_an_incomplete_character(
    spellings: list[bytes | None], expected: list[int]
) -> None:
    offsets = Offsets(Spellings(*spellings))  # type: ignore[arg-type]
    assert [offsets.next(i) for i in range(len(spellings))] == expected


# --- TextStream ---

# Few letters, so that newline spellings, stop strings and cuts overlap often.
letters = st.text("ab\\n\n", min_size=1, max_size=4)


@settings(deadline=None, max_examples=1500)
@given(st.lists(letters, max_size=12), letters | st.just(""), st.lists(letters, max_size=3))
def test_segments_join_to_the_whole_text(pieces: list[str], newline: str, stop: list[str]) -> None:
    stream = TextStream(Pieces(*pieces), newline, stop)  # type: ignore[arg-type]
    segments = stream_all(stream, range(len(pieces)))
    assert ("".join(segments), stream.stopped) == whole_text("".join(pieces), newline, stop)


@settings(deadline=None, max_examples=500)
@given(st.lists(letters, max_size=12), st.lists(letters, max_size=3))
def test_a_stop_ends_the_answer_at_the_token_that_completes_it(
    pieces: list[str], stop: list[str]
) -> None:
    stream = TextStream(Pieces(*pieces), "", stop)  # type: ignore[arg-type]
    for count in range(len(pieces)):
        stream.push(count)
        assert stream.stopped == whole_text("".join(pieces[: count + 1]), "", stop)[1]


@settings(deadline=None, max_examples=500)
@given(st.lists(letters, max_size=10), letters | st.just(""), st.lists(letters, max_size=2))
def test_text_that_could_still_change_is_held_back(
    pieces: list[str], newline: str, stop: list[str]
) -> None:
    stream = TextStream(Pieces(*pieces), newline, stop)  # type: ignore[arg-type]
    given_out = ""
    for count in range(len(pieces)):
        given_out += stream.push(count)
        for more in range(count + 1, len(pieces) + 1):
            final, _ = whole_text("".join(pieces[:more]), newline, stop)
            assert final.startswith(given_out)


@every_tokenizer
@relaxed
@given(data=st.data())
def test_segments_join_with_real_tokenizers(opened: Opened, name: str, data: st.DataObject) -> None:
    tokenizer = opened(name)
    ids = draw_ids(data, tokenizer)
    text = tokenizer.decode(ids)
    cuts = st.tuples(st.integers(0, len(text)), st.integers(1, 4))
    parts = st.lists(cuts.map(lambda cut: text[cut[0] : cut[0] + cut[1]]), max_size=3)
    newline = data.draw(st.sampled_from([r"\n", "", "<br>"]))
    stop = [part for part in data.draw(parts) if part]
    stream = TextStream(tokenizer, newline, stop)
    segments = stream_all(stream, ids)
    assert ("".join(segments), stream.stopped) == whole_text(text, newline, stop)
    assert "".join(segments).count("\ufffd") <= text.count("\ufffd")


def test_text_that_may_begin_a_stop_string_is_held_back() -> None:
    stream = TextStream(Pieces("ab", "S", "T", "x", "STOP", "more"), "", ["STOP"])  # type: ignore[arg-type]
    assert [stream.push(i) for i in range(3)] == ["ab", "", ""]
    assert stream.push(3) == "STx"
    assert stream.push(4) == ""
    assert stream.stopped
    assert stream.push(5) == ""
    assert stream.finish() == ""


def test_the_stop_string_that_is_complete_first_ends_the_text() -> None:
    text = TextStream(Pieces("xabcde"), "", ["bcde", "abc", "c"])  # type: ignore[arg-type]
    assert text.push(0) == "x"  # "abc" and "c" end first, and "abc" is the longer one


def test_newline_spelling_across_tokens() -> None:
    stream = TextStream(Pieces("一", "\\", "n", "二", "\\", "\\n"), r"\n")  # type: ignore[arg-type]
    assert [stream.push(i) for i in range(6)] == ["一", "", "", "\n二", "", "\\"]
    assert stream.finish() == ""  # the newline at the end of a record is not part of the answer


def test_newline_before_a_stop_string_is_not_part_of_the_answer() -> None:
    stream = TextStream(Pieces("一", r"\n", "Us", "er:"), r"\n", ["User:"])  # type: ignore[arg-type]
    assert [stream.push(i) for i in range(4)] == ["一", "", "", ""]
    assert stream.stopped


def test_a_partial_newline_spelling_at_the_end_is_text() -> None:
    stream = TextStream(Pieces("一", "\\"), r"\n")  # type: ignore[arg-type]
    assert stream_all(stream, range(2)) == ["一", "", "\\"]


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(["a", "b", r"\n", "ab", "b\\n"]), max_size=10), st.data())
def test_resume_after_continues_where_the_reader_is(pieces: list[str], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(pieces)))
    tokenizer: Any = Pieces(*pieces)
    before, behind = TextStream(tokenizer, r"\n"), TextStream(tokenizer, r"\n")
    seen = "".join(stream_all(before, range(cut)))
    behind.resume_after(range(cut))
    rest = "".join(stream_all(behind, range(cut, len(pieces))))
    assert seen + rest == whole_text("".join(pieces), r"\n")[0]


def test_a_partial_newline_spelling_is_completed_after_resuming() -> None:
    pieces = Pieces("一\\", "n二")
    first = TextStream(pieces, r"\n")  # type: ignore[arg-type]
    assert first.push(0) + first.pause() == "一"
    stream = TextStream(pieces, r"\n")  # type: ignore[arg-type]
    stream.resume_after([0])
    assert stream.push(1) == "\n二"


def test_resume_after_ignores_stop_strings_in_earlier_text() -> None:
    stream = TextStream(Pieces("aSTOPb", "c", "STOP"), "", ["STOP"])  # type: ignore[arg-type]
    stream.resume_after([0])
    assert not stream.stopped
    assert [stream.push(1), stream.push(2)] == ["c", ""]
    assert stream.stopped


def test_nothing_is_lost_after_an_incomplete_character(opened: Opened) -> None:
    tokenizer = opened("bytes")
    ids = tokenizer.encode("猫😀猫は犬")
    first = next(i for i, token in enumerate(ids) if tokenizer.is_byte(token))
    for cut in range(first + 1, first + 4):
        stream = TextStream(tokenizer)
        stream.resume_after(ids[:cut])
        assert "".join(stream_all(stream, ids[cut:])).endswith("猫は犬")


@settings(deadline=None)
@given(st.text("ab", max_size=8), st.lists(st.text("ab", max_size=4), max_size=3))
def test_partial_suffix_by_definition(text: str, wanted: list[str]) -> None:
    lengths = [
        n
        for w in wanted
        for n in range(1, len(w))
        if n <= len(text) and text[len(text) - n :] == w[:n]
    ]
    assert partial_suffix(text, wanted) == max(lengths, default=0)


@pytest.mark.parametrize(
    ("seen", "new", "expected"),
    [
        (["富士"], ["山", "\\n", "川"], "山\n川"),
        (["富士", "\\n"], ["山"], "山"),  # the reader has the newline that was held back
        (["富士", "\\"], ["n", "山"], "n山"),  # and half of a possible one
        (["終わ"], ["り", "終わり", "x"], "り"),  # a stop string only counts in the new text
        ([], ["山"], "山"),
    ],
)
def test_continue_after_a_text_that_the_reader_has(
    seen: list[str], new: list[str], expected: str
) -> None:
    pieces = Pieces(*seen, *new)
    stream = TextStream(pieces, "\\n", ["終わり"])  # type: ignore[arg-type]
    stream.continue_after(range(len(seen)))
    assert "".join(stream_all(stream, range(len(seen), len(seen) + len(new)))) == expected
