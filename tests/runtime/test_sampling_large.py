"""Sampling from vectors as long as a vocabulary, which take shortcuts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from issun.runtime.decoding import filters
from issun.runtime.decoding.filters import Vector
from tests.runtime.samplers import MASKED, alive, naive_softmax

LARGE = [np.random.default_rng(seed).normal(0, scale, 5003).astype(np.float32)
         for seed, scale in ((1, 0.1), (2, 3.0), (3, 9.0))]  # fmt: skip
OUT_HERE = np.random.default_rng(4).random(5003) < 0.3


@pytest.fixture(params=range(3), ids=["flat", "usual", "peaked"])
def large(request: pytest.FixtureRequest) -> Vector:
    return np.where(OUT_HERE, np.float32(MASKED), LARGE[request.param])


@pytest.mark.parametrize("k", [1, 2, 18, 19, 20, 21, 1500, 4000, 5002])
def test_top_k_of_many(large: Vector, k: int) -> None:
    order = np.argsort(-large, kind="stable")
    expected = sorted(int(i) for i in order[:k] if large[i] > MASKED)
    assert filters.top_k_ids(large, k).tolist() == expected


@pytest.mark.parametrize("p", [0.001, 0.5, 0.9, 0.99, 0.99999])
def test_top_p_of_many(large: Vector, p: float) -> None:
    probabilities = np.array(naive_softmax(large.tolist()))
    order = np.argsort(-large, kind="stable")
    count = int(np.searchsorted(np.cumsum(probabilities[order]), p)) + 1
    kept = alive(filters.keep_top_p(large, p))
    assert abs(len(kept) - count) <= 1 + 1e-6 / (1 - p)  # rounding moves the threshold slightly
    assert sorted(order[: len(kept)].tolist()) == kept


@pytest.mark.parametrize("p", [0.001, 0.5, 0.9, 0.999])
def test_typical_of_many(large: Vector, p: float) -> None:
    probabilities = np.array(naive_softmax(large.tolist()))
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(probabilities)
        entropy = np.nansum(probabilities * surprise)
        order = np.argsort(np.abs(surprise - entropy), kind="stable")
    count = int(np.searchsorted(np.cumsum(probabilities[order]), p)) + 1
    kept = set(alive(filters.keep_typical(large, p)))
    different = kept.symmetric_difference(order[:count].tolist())
    assert len(different) <= max(4, len(kept) // 50)  # ties in typicality
    assert probabilities[list(kept)].sum() >= p - 1e-6


def test_draw_from_many(large: Vector) -> None:
    cumulated = np.cumsum(np.array(naive_softmax(large.tolist())))
    for uniform in np.random.default_rng(5).random(300):
        drawn = filters.draw(large, float(uniform))
        below = cumulated[drawn - 1] if drawn else 0.0
        assert below - 1e-6 <= uniform <= cumulated[drawn] + 1e-6
        assert large[drawn] > MASKED
    last = max(i for i in range(len(large)) if np.exp(large[i] - large.max()) > 0)
    assert filters.draw(large, math.nextafter(1, 0)) <= last
