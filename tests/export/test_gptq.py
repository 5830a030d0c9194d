"""GPTQ: the layout of round-to-nearest blocks, and less loss on correlated inputs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.export.gptq import factorize, hessian, quantize_gptq
from issun.export.quantize import dequantize_blocks, quantize_blocks
from issun.export.weights import Array


def correlated(rows: int, width: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width // 4, width))
    mixed: NDArray[np.float64] = rng.normal(size=(rows, width // 4)) @ mixing
    return (mixed + 0.1 * rng.normal(size=mixed.shape)).astype(np.float32)


def loss(inputs: Array, weight: Array, found: Array) -> float:
    return float(np.square(inputs @ (found - weight).T).sum())


@pytest.mark.parametrize(("width", "block"), [(256, 64), (256, 128), (200, 64), (40, 128)])
def test_gptq_loses_less_than_rounding(width: int, block: int) -> None:
    weight = np.random.default_rng(1).normal(size=(48, width)).astype(np.float32)
    inputs = correlated(512, width)
    plain = quantize_blocks(lambda a, b: weight[a:b], weight.shape, bits=4, block=block)
    better = quantize_gptq(weight, factorize(hessian(inputs), block=block))
    assert better.values.shape == plain.values.shape
    assert better.values.dtype == plain.values.dtype
    assert better.scales.shape == plain.scales.shape
    assert better.scales.dtype == np.float32
    rounded, made = (dequantize_blocks(q, bits=4, width=width) for q in (plain, better))
    assert loss(inputs, weight, made) < 0.5 * loss(inputs, weight, rounded)
    # Also on unseen inputs from the same distribution.
    fresh = correlated(512 + 64, width)[512:]
    assert loss(fresh, weight, made) < 0.7 * loss(fresh, weight, rounded)


@pytest.mark.parametrize(("width", "block"), [(3, 32), (256, 128), (257, 128), (701, 32)])
def test_the_factor_is_that_of_the_sorted_hessian(width: int, block: int) -> None:
    hess = hessian(correlated(2 * width, width, seed=width))
    factor = factorize(hess, block=block)
    assert sorted(number for number, _ in factor.blocks) == list(range(-(-width // block)))
    order = np.concatenate([channels for _, channels in factor.blocks])
    np.testing.assert_array_equal(np.sort(order), np.arange(width))
    lower = np.tril(factor.lower)
    np.testing.assert_allclose(lower @ lower.T, hess[np.ix_(order, order)], rtol=1e-3, atol=1e-3)
    energies = [np.diag(hess)[channels] for _, channels in factor.blocks]
    assert all((np.diff(own) >= 0).all() for own in energies)


def test_weights_on_the_grid_are_unchanged() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(-8, 8, (5, 64))
    codes[:, ::32] = -8
    weight = (codes * 0.25).astype(np.float32)
    made = quantize_gptq(weight, factorize(hessian(correlated(99, 64)), block=32))
    np.testing.assert_allclose(dequantize_blocks(made, bits=4, width=64), weight, rtol=1e-6)


def test_unused_inputs_and_zero_weights() -> None:
    inputs = correlated(64, 64)
    inputs[:, 5] = 0
    weight = np.random.default_rng(4).normal(size=(6, 64)).astype(np.float32)
    weight[2] = 0
    made = quantize_gptq(weight, factorize(hessian(inputs), block=32))
    found = dequantize_blocks(made, bits=4, width=64)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[2], 0)
    nothing = quantize_gptq(weight, factorize(hessian(np.zeros((9, 64), np.float32)), block=32))
    assert np.isfinite(nothing.scales).all()
