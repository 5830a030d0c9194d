"""Calibration against the float32 graph: both must give the same keys and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from issun.export import calibrate
from issun.export.calibrate import HEADROOM, calibration_ids, calibration_text
from issun.export.checkpoint import Checkpoint, open_checkpoint
from issun.export.lazy import CheckpointWeights
from issun.export.observe import Block, BlockActivations
from issun.export.template import ALPACA
from issun.runtime import Model
from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer

# Odd head widths, exact GELU, attention scales by layer, float16 and sharded bfloat16.
NAMES = ["head-17", "head-24-gelu", "scaled-by-layer", "unscaled", "float16", "bfloat16-sharded"]
LENGTH = 100


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def opened(name: str, checkpoint: Callable[[str], Path]) -> Checkpoint:
    return open_checkpoint(checkpoint(name))


@pytest.fixture(scope="module")
def cache(name: str, bundle: Callable[..., Path], opened: Checkpoint) -> KVCache:
    """The KV cache that the graph writes for the first ids of the calibration text."""
    model = Model.load(bundle(name, "float32"), threads=1)
    cache = model.new_cache()
    assert isinstance(cache, KVCache)
    model.decoder.prefill(cache, text_ids(opened)[:LENGTH])
    return cache


def text_ids(checkpoint: Checkpoint) -> list[int]:
    source = checkpoint.tokenizer
    return SentencePieceTokenizer(source.path, source.tokens.special).encode(calibration_text())


def weights_of(checkpoint: Checkpoint) -> CheckpointWeights:
    return CheckpointWeights(checkpoint.network, checkpoint.tensors, "float32")


def states(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> list[Any]:
    """The keys and values that calibration computes, a pair for each layer."""
    found = []

    class Recording(Block):
        def run(self, *arguments: Any) -> BlockActivations:
            seen = super().run(*arguments)
            found.append((seen.keys, seen.values))
            return seen

    monkeypatch.setattr(calibrate, "Block", Recording)
    calibrate.calibrate(weights_of(checkpoint), ids)
    return found


@pytest.mark.sampled
def test_keys_and_values_equal_those_of_the_graph(
    opened: Checkpoint, cache: KVCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = opened.network
    found = states(opened, monkeypatch, text_ids(opened)[:LENGTH])
    assert len(found) == config.n_layer
    for layer, pair in enumerate(found):
        for i, numbers in enumerate(pair):
            written = cache.buffers[2 * layer + i][0, :, :LENGTH]
            assert numbers.shape == (1, config.n_head, LENGTH, config.kv_head_dim)
            np.testing.assert_allclose(numbers[0], written, rtol=1e-4, atol=1e-4)
            assert np.all(written[..., config.head_dim :] == 0)


def test_scales_cover_the_largest_value_of_each_channel(opened: Checkpoint, cache: KVCache) -> None:
    config, seen = opened.network, []
    ids = text_ids(opened)[:LENGTH]
    scales = calibrate.calibrate(weights_of(opened), ids, progress=seen.append).scales
    assert seen == list(range(1, config.n_layer + 1))
    for layer, pair in enumerate(scales):
        for i, found in enumerate(pair):
            assert found.shape == (config.n_head, config.kv_head_dim)
            assert found.dtype == np.float32
            written = cache.buffers[2 * layer + i][0, :, :LENGTH, : config.head_dim]
            expected = np.abs(written).max(axis=1) * HEADROOM / 127
            np.testing.assert_allclose(found[:, : config.head_dim], expected, rtol=1e-3)
            assert np.all(found[:, config.head_dim :] == np.float32(1e-8))  # of zeros


def test_each_window_starts_at_position_0(
    opened: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "WINDOW", 16)
    ids = text_ids(opened)[:40]
    together = states(opened, monkeypatch, ids)
    monkeypatch.undo()
    for window in range(2):  # the last 8 ids are no complete window
        alone = states(opened, monkeypatch, ids[16 * window : 16 * window + 16])
        monkeypatch.undo()
        for pair, lone in zip(together, alone, strict=True):
            assert pair[0].shape[0] == 2
            for one, other in zip(pair, lone, strict=True):
                np.testing.assert_allclose(one[window], other[0], rtol=1e-4, atol=1e-5)


def test_the_int8_graph_contains_the_scales(
    checkpoint: Callable[[str], Path], bundle: Callable[..., Path]
) -> None:
    opened = open_checkpoint(checkpoint("head-17"))
    folder = bundle("head-17", "float32", kv_cache="int8")
    initializers = ir.load(folder / "model.kv-int8.onnx").graph.initializers
    tokenizer = SentencePieceTokenizer(opened.tokenizer.path, opened.tokenizer.tokens.special)
    ids = calibration_ids(opened.network, tokenizer, ALPACA, calibration_text(), windows=4)
    scales = calibrate.calibrate(weights_of(opened), ids).scales
    for layer, pair in enumerate(scales):
        for part, expected in zip(("k", "v"), pair, strict=True):
            stored = initializers[f"h.{layer}.{part}_scale"].const_value
            assert stored is not None
            heads, width = expected.shape
            assert np.array_equal(stored.numpy(), expected.reshape(1, heads, 1, width))


def test_the_calibration_text_is_broad_and_repeats_no_line() -> None:
    text = calibration_text()
    assert len(text.encode()) > 60_000
    lines = text.splitlines()
    assert len(set(lines)) == len(lines)
    letters = sum(c.isascii() and c.isalpha() for c in text)
    kana = sum("\u3040" <= c <= "\u30ff" for c in text)
    kanji = sum("\u4e00" <= c <= "\u9fff" for c in text)
    for count, least in ((letters, 0.1), (kana, 0.3), (kanji, 0.15)):
        assert count > least * len(text)


def test_every_other_window_starts_with_a_prompt(checkpoint: Callable[[str], Path]) -> None:
    opened = open_checkpoint(checkpoint("head-17"))
    tokenizer = SentencePieceTokenizer(opened.tokenizer.path, opened.tokenizer.tokens.special)
    ids = calibration_ids(opened.network, tokenizer, ALPACA, calibration_text(), windows=4)
    begins = [ids[i] == tokenizer.special["<s>"] for i in range(0, len(ids), 256)]
    assert begins[:3] == [True, False, True]
    assert ids.count(tokenizer.special["[SEP]"]) >= 2 * 2
