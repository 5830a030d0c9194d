"""Scores of texts and ranks of continuations: numbers by hand, and against `Model.score`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from issun.runtime import (
    ContextError,
    Model,
    ParameterError,
    RankedContinuation,
    SamplingParams,
    TextScore,
)
from issun.runtime.decoding.distributions import log_softmax
from issun.runtime.decoding.scoring import Window, cut_windows, token_logprobs
from issun.runtime.manifest import read_manifest, write_manifest
from issun.runtime.scores import encode_after
from tests.runtime.samplers import of

TEXT = "富士山は日本で一番高い山です。" * 12
BEGIN = 2


def expected(model: Model, ids: list[int], first: int) -> np.ndarray:
    """The log-probabilities of ids[first:], from the logits of one pass."""
    rows = log_softmax(model.score(ids))
    return np.array([rows[i - 1, ids[i]] for i in range(first, len(ids))])


def test_token_logprobs() -> None:
    logits = np.stack([of(0.5, 0.25, 0.25), of(0.1, 0.2, 0.7) + 3])
    found = token_logprobs(logits, [1, 2])
    assert np.exp(found) == pytest.approx([0.25, 0.7])
    assert (found.dtype, token_logprobs(logits[:0], []).shape) == (np.float64, (0,))


def test_windows() -> None:
    assert list(cut_windows(10, 4, 2, first=1)) == [
        Window(0, 1, 4),
        Window(2, 4, 6),
        Window(4, 6, 8),
        Window(6, 8, 10),
    ]
    assert list(cut_windows(9, 4, 4, first=0)) == [(0, 0, 4), (4, 4, 8), (8, 8, 9)]
    assert list(cut_windows(3, 4, 2, first=1)) == [(0, 1, 3)]


@given(st.integers(2, 60), st.integers(2, 20), st.data())
def test_every_id_is_scored_once(count: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size - 1))
    windows = list(cut_windows(count, size, stride, first=1))
    assert [i for w in windows for i in range(w.first, w.stop)] == list(range(1, count))
    assert all(w.stop - w.start <= size and w.first > w.start for w in windows)
    assert all(w.first - w.start >= size - stride for w in windows[1:])


def test_the_numbers_of_a_score() -> None:
    score = TextScore([7, 8, 9], np.log([0.5, 0.125]), 5)
    assert score.mean == pytest.approx(-2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.bits_per_byte == pytest.approx(4 / 5)
    # Losses of 1 and 3 bits: a deviation of √2 bits, and √2 tokens.
    assert score.error == pytest.approx(4 * math.log(2))
    assert math.isnan(TextScore([7, 8], np.log([0.5]), 5).error)


def test_a_short_text_is_scored_in_one_window(model: Model) -> None:
    score = model.score_text(TEXT[:15])
    assert score.ids == model.tokenizer.encode(TEXT[:15])
    np.testing.assert_allclose(score.logprobs, expected(model, score.ids, 1), atol=1e-5)
    first = model.tokenizer.decode(score.ids[:1])
    assert score.num_bytes == len(TEXT[:15].encode()) - len(first.encode())


def test_a_long_text_is_scored_in_windows(model: Model) -> None:
    done: list[tuple[int, int]] = []
    score = model.score_text(
        TEXT, window=20, stride=15, progress=lambda *counts: done.append(counts)
    )
    ids = score.ids
    parts = [expected(model, ids[:20], 1)]
    start, first = 15, 20
    while first < len(ids):
        parts.append(expected(model, ids[start : start + 20], first - start))
        start, first = start + 15, min(start + 20, len(ids))
    np.testing.assert_allclose(score.logprobs, np.concatenate(parts), atol=1e-5)
    assert done[0] == (20, len(ids))
    assert done[-1] == (len(ids), len(ids))
    assert len(score.logprobs) == len(ids) - 1


@pytest.fixture
def begins(bundle: Callable[..., Path], tmp_path: Path) -> Iterator[Model]:
    """A model whose texts begin with a token."""
    folder = shutil.copytree(bundle("unscaled", "float32"), tmp_path / "bundle")
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, tokens=replace(manifest.tokens, begin=(BEGIN,))))
    with Model.load(folder, threads=1) as found:
        yield found


def test_every_window_begins_with_the_begin_token(begins: Model) -> None:
    score = begins.score_text(TEXT, window=21, stride=20)
    ids = score.ids
    assert (len(score.logprobs), score.num_bytes) == (len(ids), len(TEXT.encode()))
    windows = [[BEGIN, *ids[start : start + 20]] for start in range(0, len(ids), 20)]
    parts = [expected(begins, window, 1) for window in windows]
    np.testing.assert_allclose(score.logprobs, np.concatenate(parts), atol=1e-5)
    assert len(begins.score_text("山").logprobs) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1}, "window is 1, it must be a whole number from 2 to"),
        ({"window": 100_000}, "window is 100000"),
        ({"window": 10, "stride": 10}, "stride is 10, it must be a whole number from 1 to 9"),
        ({"window": 10, "stride": 0}, "stride is 0"),
        ({"window": True}, "window is True"),
    ],
)
def test_windows_out_of_range(model: Model, options: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        model.score_text(TEXT, **options)


def test_a_text_without_a_token_to_score(model: Model) -> None:
    for text in ("", "\n"):
        with pytest.raises(ParameterError, match="no token to score"):
            model.score_text(text)


def test_continuations_are_scored_after_the_prompt(model: Model) -> None:
    texts = ["富士山", "琵琶湖です", "山", "日本" * 40]
    prompt = model.prompt("一番高い山は?")
    for slots in (1, 2, 16):
        found = model.rank(prompt, texts, slots=slots)
        assert sorted(one.index for one in found) == [0, 1, 2, 3]
        for one in found:
            assert one.text == texts[one.index]
            logprobs = expected(model, [*prompt, *one.ids], len(prompt))
            np.testing.assert_allclose(one.logprobs, logprobs, atol=2e-5)


def test_ranks_are_by_token_byte_or_total(model: Model) -> None:
    texts = ["富士山", "琵琶湖です", "山", "日本" * 10]
    for by in ("token", "byte", "total"):
        found = model.rank("一番高い山は", texts, by=by)  # type: ignore[arg-type]
        scores = [one.score(by) for one in found]  # type: ignore[arg-type]
        assert scores == sorted(scores, reverse=True)


def test_the_scores_of_a_continuation() -> None:
    one = RankedContinuation(0, "山は", [4, 5], (-1.0, -2.0))
    assert (one.total, one.per_token, one.per_byte) == (-3, -1.5, -0.5)
    assert [one.score(by) for by in ("token", "byte", "total")] == [-1.5, -0.5, -3]


def test_equal_continuations_stay_in_order(model: Model) -> None:
    assert [one.index for one in model.rank("山は", ["富士", "富士", "富士"])] == [0, 1, 2]


def test_a_decoder_without_slots_ranks_one_after_another(
    scripted: Callable[..., Model],
) -> None:
    model = scripted(lambda ids: ids[-1] + 1)
    ids = model.encode("山は")
    found = model.rank("山は", ["富士", "湖"])
    for one in found:
        rows = [ids[-1] + 1, *(i + 1 for i in one.ids[:-1])]
        likely = 10 - math.log(math.exp(10) + 511)
        given = [likely if i == row else likely - 10 for i, row in zip(one.ids, rows, strict=True)]
        assert one.logprobs == pytest.approx(given)


def test_continuations_may_be_a_series_of_any_kind(model: Model) -> None:
    texts = ["富士", "海"]
    for series in (tuple(texts), iter(texts), np.array(texts)):
        assert model.rank("山", series) == model.rank("山", texts)  # type: ignore[arg-type]


def test_what_cannot_be_ranked(model: Model) -> None:
    with pytest.raises(ParameterError, match="at least one text"):
        model.rank("山", [])
    with pytest.raises(ParameterError, match="at least one text"):
        model.rank("山", "富士")
    with pytest.raises(ParameterError, match="at least one text"):
        model.rank("山", ["富士", 1])  # type: ignore[list-item]
    with pytest.raises(ParameterError, match="'' has no tokens"):
        model.rank("山", ["富士", ""])
    with pytest.raises(ParameterError, match="prompt is empty"):
        model.rank("", ["富士"])
    with pytest.raises(ParameterError, match="by is 'mean', it must be one of token, byte, total"):
        model.rank("山", ["富士"], by="mean")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="slots is 0"):
        model.rank("山", ["富士"], slots=0)
    with pytest.raises(ContextError, match="do not fit"):
        model.rank("山", ["富士", "山" * model.decoder.n_positions])
    assert model.rank("山", ["富士"])  # the model is still free


def test_a_continuation_is_encoded_as_an_answer_is() -> None:
    with Model.load(threads=1) as model:
        prompt = model.prompt("日本の首都は?")
        answer = model.generate(prompt, SamplingParams(temperature=0))
        (ranked,) = model.rank(prompt, [answer.text])
        assert ranked.ids == answer.ids[: len(ranked.ids)]
        assert len(ranked.ids) >= len(answer.ids) - 1  # without the newline at the end
        (ranked,) = model.rank(prompt, ["山\n川"])  # as in the training data
        assert model.tokenizer.decode(ranked.ids) == r"山\n川"


class Spaced:
    """Characters as tokens, after a space: a tokenizer with SentencePiece's dummy prefix."""

    begins_with_space = True
    special: dict[str, int] = {"<s>": 1}  # noqa: RUF012

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in " " + text.replace("。日", "日")] if text else []

    def encode_parts(self, parts: list[str | int]) -> list[int]:
        return [i for p in parts for i in ([p] if isinstance(p, int) else self.encode(p))]


def test_a_continuation_has_no_space_that_the_tokenizer_adds() -> None:
    def encoded(prompt: list[int], text: str) -> str:
        return "".join(map(chr, encode_after(Spaced(), prompt, text)))  # type: ignore[arg-type]

    assert encoded([5], "山") == "山"
    assert encoded([5], " 山") == " 山"
    assert encoded([5], "日本") == "日本"  # the first anchor would merge with it
    assert encoded([5, 1], "山") == " 山"  # after a control token a new text begins
    assert encoded([5], "") == ""
