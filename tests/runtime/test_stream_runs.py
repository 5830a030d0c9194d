"""Runs of byte pieces of which one invalid byte makes all of them U+FFFD."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.runtime.text.stream import _MAX_HELD, Detokenizer, TextStream

LETTER = 256  # a token that is not a byte


class Bytes:
    """Token i is the byte i, as byte fallback decodes it; LETTER is a letter."""

    byte_level = False
    whole_runs = True

    def decode(self, ids: Iterable[int]) -> str:
        text, run = "", b""
        for token in [*ids, None]:
            if token is not None and token != LETTER:
                run += bytes([token])
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(run)
            text, run = text + ("" if token is None else "a"), b""
        return text

    def is_byte(self, token: int) -> bool:
        return token != LETTER


def streamed(ids: Iterable[int]) -> str:
    stream = Detokenizer(Bytes())  # type: ignore[arg-type]
    return "".join([*map(stream.push, ids), stream.finish()])


@given(st.lists(st.integers(0, LETTER), max_size=_MAX_HELD))
def test_segments_join_to_the_decoded_text(ids: list[int]) -> None:
    assert streamed(ids) == Bytes().decode(ids)


def test_a_run_is_held_back_until_it_ends() -> None:
    stream = Detokenizer(Bytes())  # type: ignore[arg-type]
    assert [stream.push(i) for i in [*"🐭".encode(), LETTER]] == ["", "", "", "", "🐭a"]


def test_a_long_run_is_shown_before_it_ends() -> None:
    text = "吾輩は猫である。" * 20
    stream = Detokenizer(Bytes())  # type: ignore[arg-type]
    seen = "".join(map(stream.push, text.encode()))
    assert seen == text
    assert stream.finish() == ""


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_truncated_answer_has_all_complete_characters(cut: int) -> None:
    text = TextStream(Bytes())  # type: ignore[arg-type]
    ids = "おわり🐭".encode()[:-cut] if cut < 4 else "おわり".encode()
    assert "".join(map(text.push, ids)) + text.pause() == "おわり"


def test_a_truncated_answer_goes_on_where_it_was_cut() -> None:
    ids = "おわり🐭".encode()
    first = TextStream(Bytes())  # type: ignore[arg-type]
    shown = "".join(map(first.push, ids[:11])) + first.pause()
    second = TextStream(Bytes())  # type: ignore[arg-type]
    second.resume_after(ids[:11])
    rest = "".join(map(second.push, ids[11:])) + second.finish()
    assert (shown, rest) == ("おわり", "🐭")
