"""Smoothing factors: exact in float32, and effective against outlier channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.export import smoothing
from issun.export.calibrate import calibrate
from issun.export.checkpoint import Checkpoint, open_checkpoint
from issun.export.lazy import CheckpointWeights
from issun.export.observe import Block, BlockActivations
from issun.export.quantization_loss import product_loss
from issun.export.quantize import Quantized, dequantize_blocks
from issun.export.smoothing import Factors, smoothed

ALONE = smoothing._Grouped(1, 8)
IDS = [int(i) for i in np.random.default_rng(0).integers(7, 400, 96)]


@pytest.fixture(scope="module", params=["head-17", "head-24-gelu", "scaled-by-layer"])
def opened(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Checkpoint:
    return open_checkpoint(checkpoint(str(request.param)))


def weights_of(opened: Checkpoint) -> CheckpointWeights:
    return CheckpointWeights(opened.network, opened.tensors, "int8")


def blocks(weights: CheckpointWeights) -> list[BlockActivations]:
    """The activations of each block for the ids, as one window."""
    x, found = weights.embed(np.array([IDS])), []
    for layer in range(weights.network.n_layer):
        found.append(Block(weights, layer).run(x))
        x = found[-1].output
    return found


def test_factors_change_nothing_in_float32(opened: Checkpoint) -> None:
    rng, network = np.random.default_rng(1), opened.network
    heads = network.n_kv_head * network.kv_head_dim

    def drawn(width: int) -> NDArray[np.float32]:
        return np.exp(rng.normal(0, 1, width)).astype(np.float32)

    factors = [
        Factors(network, drawn(network.n_embd), drawn(heads), drawn(network.n_embd))
        for _ in range(opened.network.n_layer)
    ]
    weights = weights_of(opened)
    before = blocks(weights)
    for layer, own in enumerate(factors):
        weights.smooth(layer, own)
    after = blocks(weights)
    for own, one, other in zip(factors, before, after, strict=True):
        np.testing.assert_allclose(other.output, one.output, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(other.keys, one.keys, rtol=1e-3, atol=1e-3)
        divided = own.divide(one.inputs)
        for name, rows in other.inputs.items():
            np.testing.assert_allclose(rows, divided[name], rtol=1e-3, atol=1e-3)


def test_some_rows_can_be_read(opened: Checkpoint) -> None:
    network = opened.network
    twos = np.full(network.n_embd, 2, np.float32)
    values = np.full(network.n_kv_head * network.kv_head_dim, 2, np.float32)
    factors = Factors(network, twos, values, twos)
    tensors = smoothed(opened.tensors, 0, factors)
    whole = tensors["h.0.up.weight"].read()
    np.testing.assert_array_equal(tensors["h.0.up.weight"].read(3, 5), whole[3:5])
    np.testing.assert_array_equal(whole, 2 * opened.tensors["h.0.up.weight"].read())
    assert all(name.startswith("h.0.") for name in tensors)


def test_factors_by_hand() -> None:
    peaks, largest = np.float32([4, 1, 0, 5]), np.float32([1, 4, 3, 0])
    np.testing.assert_allclose(smoothing._factor(peaks, largest, 0.5), [2, 0.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(smoothing._factor(peaks, largest, 1.0), [2, 0.5, 1, 1], rtol=1e-6)
    nothing = np.zeros(3, np.float32)
    np.testing.assert_array_equal(smoothing._factor(nothing, nothing, 0.5), np.ones(3))


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_outlier_channels_are_smoothed(precision: str) -> None:
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(200, 256)).astype(np.float32)
    weight = rng.normal(size=(256, 96)).astype(np.float32)
    loss = product_loss(precision)  # type: ignore[arg-type]
    plain = loss(inputs, weight)
    where = rng.choice(256, 4, replace=False)
    inputs[:, where] *= 60
    weight[where] /= 60
    spoilt = loss(inputs, weight)
    factor = smoothing._best(inputs[None], weight, loss, ALONE)
    mended = loss(inputs / factor, weight * factor[:, None])
    assert spoilt > 3 * plain
    assert mended < 1.2 * plain
    others = np.delete(factor, where)
    assert factor[where].min() > 3 * others.max()


def test_even_channels_are_unchanged() -> None:
    loss = product_loss("int8")
    # These values are on the grid; after a division by factors they would not be.
    inputs = np.float32([[127, 1, 64, 3], [1, 127, 5, 9]])
    weight = np.float32([[127, 64], [-2, 3], [1, 127], [90, -5]])
    assert loss(inputs, weight) == 0
    np.testing.assert_array_equal(smoothing._best(inputs, weight, loss, ALONE), np.ones(4))


class Recorded(CheckpointWeights):
    """Weights that remember the factors they were smoothed with."""

    def smooth(self, layer: int, factors: Factors) -> None:
        self.factors = [*getattr(self, "factors", []), factors]
        super().smooth(layer, factors)


def test_calibration_never_increases_the_loss(opened: Checkpoint) -> None:
    loss = product_loss("int8")
    weights = Recorded(opened.network, opened.tensors, "int8")
    plain, values = weights_of(opened), opened.network.n_kv_head * opened.network.kv_head_dim
    layers: list[int] = []
    scales = calibrate(weights, IDS, smooth_for="int8", progress=layers.append).scales
    assert layers == list(range(1, opened.network.n_layer + 1))
    for layer, (seen, own) in enumerate(zip(blocks(plain), weights.factors, strict=True)):
        for name in ("qkv", "out", "up"):
            rows, factor = seen.inputs[name].reshape(len(IDS), -1), own.inputs[name]
            exact = plain.read(f"h.{layer}.{name}.weight")
            even = exact * factor[:, None]
            # The factors are chosen on a sample of the columns, those of the values among them,
            # whose own factors change the size of their error later. The inputs of the smoothed
            # network differ by float32 rounding, which moves some of them to another int8 value.
            before, after = (
                loss(*smoothing.sample(x, w)) for x, w in ((rows, exact), (rows / factor, even))
            )
            assert after <= before
            if name == "qkv":
                even[:, -values:] /= own.value
            np.testing.assert_array_equal(weights.read(f"h.{layer}.{name}.weight"), even)
    # The scales of the KV cache are those of the smoothed values.
    for one, other in zip(scales, calibrate(weights, IDS).scales, strict=True):
        for scale, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(scale, expected, rtol=1e-3)


def test_gptq_results_are_written_with_padded_heads(opened: Checkpoint) -> None:
    weights = CheckpointWeights(opened.network, opened.tensors, "int4")
    calibrate(weights, IDS, gptq=True)
    plain = CheckpointWeights(opened.network, opened.tensors, "int4")
    for name in ("h.0.qkv", "h.0.out", "h.0.up", "h.0.down"):
        fitted, rounded = (
            [w.tensor(f"{name}.{p}").numpy() for p in ("weight", "scale")] for w in (weights, plain)
        )
        assert fitted[0].shape == rounded[0].shape
        assert not np.array_equal(fitted[0], rounded[0])
        width = weights.linear_shape(f"{name}.weight")[0]
        back = dequantize_blocks(Quantized(*fitted), bits=4, width=width)
        exact = plain.read(f"{name}.weight").T
        np.testing.assert_allclose(back, exact, atol=0.5 * np.abs(exact).max())
