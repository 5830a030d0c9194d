"""Prompts outside conversations share one cache, and the memory of long ones is freed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import Model, SamplingParams
from issun.runtime import model as runtime_model
from issun.runtime.decoding.kv_cache import KVCache

LONG = [int(i) for i in np.random.default_rng(1).integers(7, 400, 150)]
GREEDY = SamplingParams(temperature=0, min_new_tokens=8, max_new_tokens=8)


@pytest.fixture
def model(bundle: Callable[..., Path]) -> Model:
    return Model.load(bundle("head-8"), threads=1)


def cache_of(model: Model) -> KVCache:
    assert isinstance(model._cache, KVCache)
    return model._cache


def test_the_next_answer_reuses_the_buffers(model: Model) -> None:
    first = model.generate(LONG, GREEDY)
    cache = cache_of(model)
    row = cache.buffers[:, 0, :, 0].nbytes
    assert cache.nbytes >= (len(LONG) + 7) * row
    held = cache.nbytes
    assert model.generate(LONG, GREEDY).ids == first.ids
    model.score(LONG[:20])
    assert cache_of(model) is cache
    assert cache.nbytes == held


@pytest.mark.parametrize("ending", ["finish", "cancel", "close", "score"])
def test_the_memory_of_a_long_prompt_is_freed(
    model: Model, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    expected = model.generate(LONG, GREEDY).ids
    monkeypatch.setattr(runtime_model, "_LARGE_CACHE", cache_of(model).nbytes // 2)
    if ending == "score":
        model.score(LONG)
    else:
        stream = model.stream(LONG, GREEDY)
        next(stream)
        assert cache_of(model).nbytes > 0
        getattr(stream, ending)()
    assert cache_of(model).nbytes == 0
    assert model.generate(LONG, GREEDY).ids == expected
    model.generate(LONG[:20], GREEDY)  # a small amount
    assert cache_of(model).nbytes > 0


def test_an_optimum_cache_frees_rewound_tokens() -> None:
    from issun.runtime.decoding.optimum import GrowingCache

    cache = GrowingCache(["key", "value"], n_head=2, head_dim=4)
    assert cache.nbytes == 0
    cache.past = {name: np.zeros((1, 2, 30, 4), np.float32) for name in cache.past}
    cache.ids = [list(range(30))]
    assert cache.nbytes == 2 * 2 * 30 * 4 * 4
    cache.rewind(3)
    cache.shrink()
    assert cache.nbytes == 2 * 2 * 3 * 4 * 4
    assert all(array.base is None for array in cache.past.values())
