"""DRY: lengths of repetitions, the penalty by hand, and sequence breakers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.runtime import Model
from issun.runtime.decoding.dry import (
    NO_BREAKERS,
    BreakerFinder,
    SequenceBreakers,
    penalize_dry,
    repetitions,
)
from tests.runtime.samplers import sampler

A, B, C, D, E = range(5)


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ([], {}),
        ([A], {}),
        ([A, B, C], {}),
        ([A, A], {A: 1}),
        ([A, B, A], {B: 1}),
        ([A, B, C, D, A, B], {C: 2}),
        ([A, B, C, D, A, B, C], {D: 3}),
        # After B come C and E; A B came before C only.
        ([A, B, C, D, B, E, A, B], {C: 2, E: 1}),
        # The longer of two repetitions of one id counts.
        ([B, C, D, A, B, C, E, A, B], {C: 2}),
        ([A, A, A, A], {A: 3}),  # repetitions may overlap
    ],
)
def test_repetitions(seen: list[int], found: dict[int, int]) -> None:
    assert repetitions(seen, 1, 100) == found
    assert repetitions(seen, 2, 100) == {i: n for i, n in found.items() if n >= 2}
    assert repetitions(seen, 1, 2) == {i: min(n, 2) for i, n in found.items()}


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 4), st.integers(0, 6))
def test_repetitions_one_position_at_a_time(seen: list[int], shortest: int, longest: int) -> None:
    expected: dict[int, int] = {}
    for position in range(1, len(seen)):
        length = 0
        while length < min(position, longest) and seen[position - 1 - length] == seen[-1 - length]:
            length += 1
        if length >= shortest:
            expected[seen[position]] = max(length, expected.get(seen[position], 0))
    assert repetitions(seen, shortest, longest) == expected


def penalties(seen: list[int], **settings: object) -> list[float]:
    logits = np.zeros(5, np.float32)
    values = {"multiplier": 0.8, "base": 2.0, "allowed_length": 2} | settings
    penalize_dry(logits, seen, **values)  # type: ignore[arg-type]
    return [round(-float(logit), 5) for logit in logits]


def test_the_penalty_grows_with_the_length() -> None:
    assert penalties([A, B, C, A]) == [0, 0, 0, 0, 0]
    assert penalties([A, B, C, A, B]) == [0, 0, 0.8, 0, 0]
    assert penalties([A, B, C, D, A, B, C]) == [0, 0, 0, 1.6, 0]
    assert penalties([A, B, C, D, E, A, B, C, D]) == [0, 0, 0, 0, 3.2]
    assert penalties([A, B, C, D, A, B, C], allowed_length=1) == [0, 0, 0, 3.2, 0]
    assert penalties([A, B, C, D, A, B, C], base=1.0) == [0, 0, 0, 0.8, 0]


def test_a_long_repetition_stays_finite() -> None:
    (most,) = {p for p in penalties([A] * 4000, base=1.75) if p}
    assert 1e20 < most < 1e30


PIECES = [b"a", b"b", b"c", b"d", b"ef", b":", b"g:", b"-", b"->x", b"\\", b"n", b""]


def breakers(*texts: bytes) -> SequenceBreakers:
    return SequenceBreakers(texts, PIECES)


@pytest.mark.parametrize(
    ("texts", "ids", "since"),
    [
        ((b":",), [0, 1, 2], 3),
        ((b":",), [0, 5, 1, 2], 2),
        ((b":",), [5, 0, 6, 1], 1),
        ((b":",), [0, 1, 5], 0),
        ((b"->",), [0, 7, 8, 1, 2], 2),  # "-" and "->x": within the second
        ((b"-->",), [0, 7, 8, 1, 2], 2),  # across the two
        ((b"-->",), [0, 8, 1, 2], 4),
        ((b"\\n",), [0, 9, 10, 1], 1),
        ((b"\\n",), [0, 9, 11, 10, 1], 1),  # a token without a spelling between them
        ((b"\\n",), [10, 9, 1], 3),
        ((b"bcd",), [1, 2, 3, 0], 1),
        ((), [0, 1], 2),
    ],
)
def test_tokens_since_the_last_breaker(
    texts: tuple[bytes, ...], ids: list[int], since: int
) -> None:
    assert breakers(*texts).tokens_since(ids) == since


def test_a_breaker_ends_a_repetition() -> None:
    seen = [A, 5, B, C, D, A, 5, B, C]  # a:bcda:bc
    logits = np.zeros(len(PIECES), np.float32)
    penalize_dry(logits, seen, multiplier=0.8, base=2.0, allowed_length=2, breakers=breakers(b":"))
    assert logits[D] == pytest.approx(-0.8)  # b c, and not a : b c
    assert repetitions(seen, 2, 9) == {D: 4}


def test_a_breaker_itself_is_not_penalized() -> None:
    seen = [A, B, 5, C, A, B]
    logits = np.zeros(len(PIECES), np.float32)
    penalize_dry(logits, seen, multiplier=1, base=2, allowed_length=2, breakers=breakers(b":"))
    assert logits[5] == 0
    penalize_dry(logits, seen, multiplier=1, base=2, allowed_length=2, breakers=NO_BREAKERS)
    assert logits[5] == -1


def test_breakers_in_the_spelling_of_the_training_data_and_in_normal_form() -> None:
    with Model.load() as model:
        tokenizer, newline = model.tokenizer, model.manifest.prompt.newline
        finder = BreakerFinder(tokenizer, model.decoder.vocab_size, newline)
    assert newline == "\\n"  # two characters
    ids = tokenizer.encode("山\\n川は")
    assert 0 < finder.find(("\n",)).tokens_since(ids) < len(ids)
    ids = tokenizer.encode("山!川は")
    assert 0 < finder.find(("！",)).tokens_since(ids) < len(ids)
    assert finder.find(("\n",)) is finder.find(("\n",))


def test_dry_sees_the_prompt_and_comes_before_the_processors() -> None:
    found: list[float] = []

    def record(ids: object, logits: np.ndarray) -> np.ndarray:
        found.extend(logits.tolist())
        return logits

    one = sampler(
        rows=5, eos=None, banned_ids=(), temperature=0, dry_multiplier=1, processors=(record,)
    )
    assert one.sample(np.zeros(5, np.float32), [A, B, C, A], [B]) == A
    assert found == [0, 0, -1, 0, 0]


def test_dry_looks_at_the_last_ids_only() -> None:
    def penalized(last: int) -> bool:
        one = sampler(
            rows=5,
            eos=None,
            banned_ids=(),
            temperature=0,
            dry_multiplier=1,
            dry_penalty_last_n=last,
        )
        logits = one._process(np.zeros(5, np.float32), [A, B, C, D, A, B], [])
        return bool(logits[C] < 0)

    assert [penalized(n) for n in (-1, 0, 5, 6, 7)] == [True, False, False, True, True]
