"""Caches, chunks, and what is refused before the graph runs."""

from __future__ import annotations

import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from issun.runtime import ContextError, Model, ParameterError
from issun.runtime.decoding.decoder import PREFILL_CHUNK, split_chunks
from issun.runtime.decoding.kv_cache import KVCache


@pytest.fixture(scope="module", params=["float32", "int8"])
def model(request: pytest.FixtureRequest, bundle: Callable[..., Path]) -> Model:
    """The same weights with both types of KV cache."""
    folder = bundle("unscaled", "float32", kv_cache=request.param)
    return Model.load(folder, threads=1)


def ids_of(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 512, count).tolist()


def tolerance(model: Model) -> float:
    return 1e-3 if model.manifest.kv_cache == "int8" else 1e-4


# --- splitting a prompt ---


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_chunks_join_and_only_a_single_id_has_one_row(length: int) -> None:
    chunks = list(split_chunks(range(length)))
    assert [i for chunk in chunks for i in chunk] == list(range(length))
    assert all(len(chunk) <= PREFILL_CHUNK for chunk in chunks)
    assert length == 1 or all(len(chunk) > 1 for chunk in chunks)


def test_chunks_of_some_lengths() -> None:
    assert [len(c) for c in split_chunks(range(128))] == [128]
    assert [len(c) for c in split_chunks(range(129))] == [127, 2]
    assert [len(c) for c in split_chunks(range(256))] == [128, 128]
    assert [len(c) for c in split_chunks(range(257))] == [128, 127, 2]


# --- the cache ---


@pytest.mark.parametrize("length", [1, 2, 128, 129, 255])
def test_prefill_and_steps_agree_with_scoring(model: Model, length: int) -> None:
    ids = ids_of(length + 1)
    expected = model.score(ids)
    assert expected.shape == (length + 1, 512)
    cache = model.new_cache()
    np.testing.assert_allclose(
        model.decoder.prefill(cache, ids[:-1]), expected[-2], atol=tolerance(model)
    )
    np.testing.assert_allclose(
        model.decoder.step(cache, ids[-1]), expected[-1], atol=tolerance(model)
    )
    assert cache.ids == [ids]


def test_a_rewound_cache_equals_a_fresh_one(model: Model) -> None:
    ids, others = ids_of(60), ids_of(60, seed=1)
    cache = model.new_cache()
    model.decoder.prefill(cache, others)
    model.decoder.prefill(cache, others)
    cache.rewind(0)
    model.decoder.prefill(cache, ids[:40])
    model.decoder.prefill(cache, others[:50])
    cache.rewind(40)
    got = model.decoder.prefill(cache, ids[40:])
    np.testing.assert_allclose(got, model.score(ids)[-1], atol=tolerance(model))


def test_keep_common_prefix(model: Model) -> None:
    cache = model.new_cache()
    model.decoder.prefill(cache, [5, 6, 7, 8])
    assert cache.keep_common_prefix([5, 6, 7, 8, 9]) == 4
    assert cache.keep_common_prefix([5, 6, 7, 8]) == 3  # the last id is computed again
    assert cache.ids == [[5, 6, 7]]
    assert cache.keep_common_prefix([5, 9, 7]) == 1
    assert cache.keep_common_prefix([9]) == 0
    assert cache.ids == [[]]


@pytest.mark.parametrize("length", [-1, 5])
def test_rewinding_out_of_range_is_refused(model: Model, length: int) -> None:
    cache = model.new_cache()
    model.decoder.prefill(cache, [1, 2, 3, 4])
    with pytest.raises(ParameterError, match=rf"rewind to {length}: the cache has 4"):
        cache.rewind(length)
    assert cache.ids == [[1, 2, 3, 4]]


def test_two_conversations_do_not_disturb_each_other(model: Model) -> None:
    one, other = model.new_cache(), model.new_cache()
    ids = ids_of(40)
    model.decoder.prefill(one, ids[:30])
    model.decoder.prefill(other, ids_of(50, seed=1))
    got = model.decoder.prefill(one, ids[30:])
    np.testing.assert_allclose(got, model.score(ids)[-1], atol=tolerance(model))


def test_the_type_of_the_cache_is_the_graphs(model: Model) -> None:
    cache = model.new_cache()
    assert isinstance(cache, KVCache)
    assert cache.dtype == np.dtype(model.manifest.kv_cache)
    assert cache.buffers.shape == (4, 1, 7, 256 + PREFILL_CHUNK, 16)


# --- what is refused before anything runs ---


@pytest.fixture
def untouched(model: Model) -> KVCache:
    """A cache with some tokens that no refused call may change."""
    cache = model.new_cache()
    assert isinstance(cache, KVCache)
    model.decoder.prefill(cache, [1, 2, 3])
    return cache


def refused(model: Model, cache: KVCache, chunk: list[int], rows: list[int]) -> str:
    before = cache.buffers.copy()
    with pytest.raises((ParameterError, ContextError)) as caught:
        model.decoder.forward(cache, [chunk], rows)
    assert cache.ids == [[1, 2, 3]]
    assert np.array_equal(cache.buffers, before)
    return str(caught.value)


@pytest.mark.parametrize("token", [-1, 512, 2**40])
def test_an_id_out_of_range(model: Model, untouched: KVCache, token: int) -> None:
    message = refused(model, untouched, [4, token, 5], [0])
    assert message == f"The id {token} is out of range: the model has ids 0 to 511."
    with pytest.raises(ParameterError, match=f"id {token} "):
        model.score([token])
    with pytest.raises(ParameterError, match=f"id {token} "):
        model.generate([4, token])


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_out_of_range(model: Model, untouched: KVCache, row: int) -> None:
    message = refused(model, untouched, [4, 5], [0, row])
    assert message == f"The logits row {row} is out of range: there are rows 0 to 1."


def test_an_empty_chunk(model: Model, untouched: KVCache) -> None:
    assert "list of ids is empty" in refused(model, untouched, [], [])


def test_nothing_to_prefill_or_score(model: Model) -> None:
    with pytest.raises(ParameterError, match="list of ids is empty"):
        model.decoder.prefill(model.new_cache(), [])
    with pytest.raises(ParameterError, match="list of ids is empty"):
        model.score([])


def test_past_the_context(model: Model, untouched: KVCache) -> None:
    message = refused(model, untouched, [4] * 254, [0])
    assert message == "257 tokens do not fit into the context of 256."
    # Prefill raises before its first chunk.
    before = untouched.buffers.copy()
    with pytest.raises(ContextError, match="257 tokens"):
        model.decoder.prefill(untouched, [4] * 254)
    assert np.array_equal(untouched.buffers, before)
    model.decoder.prefill(untouched, [4] * 253)
    assert len(untouched.ids[0]) == 256
    with pytest.raises(ContextError, match="257 tokens"):
        model.decoder.step(untouched, 4)


def test_ends_of_the_ranges_are_allowed(model: Model) -> None:
    logits = model.decoder.forward(model.new_cache(), [[0, 511]], [1, 0, 1])
    assert logits.shape == (3, 512)
    assert np.array_equal(logits[0], logits[2])


def test_a_batch_gives_what_each_sequence_gives_alone(model: Model) -> None:
    one, other = ids_of(9), ids_of(5, seed=1)
    cache = model.decoder.new_cache(slots=2)
    logits = model.decoder.forward(cache, [one[:6], other[:2]], [5, 6 + 1])
    np.testing.assert_allclose(logits[0], model.score(one[:6])[-1], atol=tolerance(model))
    np.testing.assert_allclose(logits[1], model.score(other[:2])[-1], atol=tolerance(model))
    # Ragged chunks, appended to caches of different lengths.
    logits = model.decoder.forward(cache, [one[6:8], other[2:]], [1, 3 + 2])
    np.testing.assert_allclose(logits[0], model.score(one[:8])[-1], atol=tolerance(model))
    np.testing.assert_allclose(logits[1], model.score(other)[-1], atol=tolerance(model))
    assert cache.ids == [one[:8], other]


# --- memory ---

_MEMORY = """
import sys, psutil
from issun.runtime import Model
model = Model.load(sys.argv[1], threads=1)
model.decoder.prefill(model.new_cache(), list(range(100)))  # what ONNX Runtime takes by itself
process = psutil.Process()
rss = lambda: process.memory_info().rss
start = rss()
cache = model.new_cache()
sizes = [cache.buffers.nbytes, rss() - start]
for _ in range(4):
    model.decoder.prefill(cache, list(range(250)))
    sizes.append(rss() - start)
print(*sizes)
"""


def test_a_cache_takes_memory_as_it_fills(bundle: Callable[..., Path]) -> None:
    folder = bundle("head-20-width-100", "float32")
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, folder], capture_output=True, check=True, text=True
    )
    whole, empty, *filled = map(int, done.stdout.split())
    page = 4096
    assert whole > 600 * page
    assert empty < 0.1 * whole
    assert filled[0] < 0.5 * whole
    steps = np.diff([empty, *filled])
    share = 250 / (1030 + PREFILL_CHUNK) * whole
    assert np.all(steps > 0.5 * share)
    assert np.all(steps[1:] < 2 * share)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes single pages back")
@pytest.mark.parametrize("held", [0, 1, 77])
def test_rewound_tokens_take_no_memory(model: Model, held: int) -> None:
    cache = model.decoder.new_cache(2)
    assert isinstance(cache, KVCache)
    cache.buffers[:] = 1
    cache.ids = [list(range(held)), list(range(cache.buffers.shape[3] - PREFILL_CHUNK))]
    cache.shrink()
    assert (cache.buffers[:, 0, :, :held] == 1).all()
    assert (cache.buffers[:, 1, :, : len(cache.ids[1])] == 1).all()
    zeros = (cache.buffers[:, 0, :, held:] == 0).sum() * cache.dtype.itemsize
    unaligned = cache.buffers[:, 0, :, 0, 0].size * 2 * mmap.PAGESIZE
    assert zeros >= cache.buffers[:, 0, :, held:].nbytes - unaligned
