"""Filters against naive implementations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from issun.runtime.decoding import filters
from tests.runtime.samplers import (
    MASKED,
    alive,
    naive_softmax,
    sampler,
    vector,
)

some_logits = st.lists(
    st.one_of(st.floats(-20, 20, width=32), st.just(MASKED)), min_size=2, max_size=30
).filter(lambda values: max(values) > MASKED)
shares = st.floats(0.01, 0.99)


def far_from(p: float, order: Sequence[int], probabilities: Sequence[float]) -> bool:
    """Return False if rounding decides whether a sum reaches p."""
    sums = np.cumsum([probabilities[i] for i in order])
    return bool(np.all(np.abs(sums - p) > 1e-6))


def fewest(order: Sequence[int], probabilities: Sequence[float], p: float) -> list[int]:
    """Return as many of the first ids in `order` as reach p."""
    kept: list[int] = []
    reached = 0.0
    for i in order:
        if reached >= p:
            break
        kept.append(i)
        reached += probabilities[i]
    return kept


@given(some_logits, st.integers(1, 40))
def test_top_k_as_a_full_sort(values: list[float], k: int) -> None:
    logits = vector(*values)
    kth = sorted(logits.tolist(), reverse=True)[min(k, len(values)) - 1]
    assert filters.top_k_ids(logits, k).tolist() == [
        i for i, v in enumerate(logits.tolist()) if v >= kth and v > MASKED
    ]


@given(some_logits, shares)
def test_top_p_as_a_full_sort(values: list[float], p: float) -> None:
    logits = vector(*values)
    probabilities = naive_softmax(logits.tolist())
    order = sorted(range(len(values)), key=lambda i: -logits[i])
    kept = fewest(order, probabilities, p)
    if far_from(p, order, probabilities):
        assert alive(filters.keep_top_p(logits, p)) == sorted(kept)


@given(some_logits, shares)
def test_min_p_by_definition(values: list[float], p: float) -> None:
    logits = vector(*values)
    probabilities = naive_softmax(logits.tolist())
    least = p * max(probabilities)
    near = {i for i, q in enumerate(probabilities) if abs(q - least) <= 1e-5 * least}
    got = set(alive(filters.keep_min_p(logits, p)))
    assert got - near == {i for i, q in enumerate(probabilities) if q >= least} - near


@given(some_logits, shares)
def test_typical_as_a_full_sort(values: list[float], p: float) -> None:
    logits = vector(*values)
    probabilities = naive_softmax(logits.tolist())
    living = [i for i, q in enumerate(probabilities) if q > 0]
    entropy = -math.fsum(probabilities[i] * math.log(probabilities[i]) for i in living)
    distance = {i: abs(-math.log(probabilities[i]) - entropy) for i in living}
    order = sorted(living, key=lambda i: distance[i])
    kept = fewest(order, probabilities, p)
    gaps = np.diff([distance[i] for i in order])
    if far_from(p, order, probabilities) and np.all(gaps > 1e-9):
        assert alive(filters.keep_typical(logits, p)) == sorted(kept)


@given(some_logits, st.lists(st.integers(0, 1), max_size=20), st.floats(0.1, 10))
def test_repetition_one_id_at_a_time(values: list[float], seen: list[int], penalty: float) -> None:
    expected = vector(*values)
    for i in set(seen):
        expected[i] = expected[i] / penalty if expected[i] > 0 else expected[i] * penalty
    got = vector(*values)
    filters.penalize_repetition(got, seen, penalty)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@given(st.lists(st.integers(0, 3), max_size=25), st.integers(1, 4))
def test_no_ngram_repeats(seen: list[int], size: int) -> None:
    def ngrams(ids: list[int]) -> list[tuple[int, ...]]:
        return [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]

    logits = np.zeros(4, np.float32)
    filters.no_repeat_ngram(logits, seen, size)
    left = alive(logits)
    for token in range(4):
        new = ngrams([*seen, token])[-1:]
        assert (token in left) == (not new or new[0] not in ngrams(seen))


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.05, 5),
    st.integers(0, 5),
    shares,
    st.floats(0, 1),
    shares,
)
def test_filters_never_mask_every_token(  # noqa: PLR0917
    values: list[float],
    uniform: float,
    temperature: float,
    k: int,
    p: float,
    min_p: float,
    typical_p: float,
) -> None:
    one = sampler(
        uniform, temperature=temperature, top_k=k, top_p=p, min_p=min_p, typical_p=typical_p
    )
    assert one.sample(vector(*values), [], []) in (1, 2, 3, 4)
