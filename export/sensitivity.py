"""How much a block's output changes when its linear layers are quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from issun.export.kinds import KINDS, Kind
from issun.export.lazy import CheckpointWeights
from issun.export.observe import Block, BlockActivations
from issun.export.quantization_loss import product, quantized_product
from issun.export.smoothing import PLACES, Factors
from issun.export.weights import Array

_WINDOWS = 2  # of the windows

# Linear layer -> precision -> a loss: here the energy of the change of the block's output, relative
# to the output's energy. The precision float32 loses nothing.
Sensitivities = dict[str, dict[Kind, float]]


def measure(
    weights: CheckpointWeights, layer: int, x: Array, seen: BlockActivations
) -> Sensitivities:
    """The relative energy of the change of a block's output, for each linear layer and precision.

    It is the mean over positions, with only that linear layer quantized, as GPTQ has fitted it if
    it has run. `seen` are the smoothed block's activations for the input x, (window, position,
    n_embd), which the weights should not be fitted to.
    """
    block = Block(weights, layer, takes_errors=True)
    found: Sensitivities = {}
    for name, inputs in seen.inputs.items():
        base = f"h.{layer}.{name}"
        rows, weight = _without_outliers(weights, base, inputs[:_WINDOWS], block.weight(name))
        exact = rows @ weight
        found[base] = {"float32": 0.0}
        for kind in KINDS[:-1]:
            error = product(rows, weights.quantized(base, kind), kind, weights.floor(base)) - exact
            found[base][kind] = _output_change(block, x, seen, {name: error})
    return found


def worthwhile_factors(
    factors: Factors, block: Block, x: Array, seen: BlockActivations, kind: Kind
) -> Factors:
    """The factors that reduce the error of a block's output in precision `kind`; others become 1.

    Each field of the factors is judged by itself. `block` takes errors and is not smoothed yet;
    `seen` are its activations for the input x, (window, position, n_embd). The error of a linear
    layer's own product is no substitute, since some outputs matter far more than others: on a
    trained Llama in int4, factors that lowered it by 5 % raised the KL divergence by half.
    """
    for place, linears in PLACES.items():
        factor = getattr(factors, place)
        if factor is None or np.all(factor == 1):
            continue
        plain: dict[str, Array] = {}
        smooth: dict[str, Array] = {}
        for name in linears:
            own = factors.inputs[name]
            if own is None or name not in seen.inputs:
                continue
            rows, weight = _rows(seen.inputs[name][:_WINDOWS]), block.weight(name)
            exact = rows @ weight
            plain[name] = quantized_product(rows, weight, kind) - exact
            smooth[name] = quantized_product(rows / own, weight * own[:, None], kind) - exact
        if not _output_change(block, x, seen, smooth) < _output_change(block, x, seen, plain):
            factors = replace(factors, **{place: np.ones_like(factor)})
    return factors


def _output_change(
    block: Block, x: Array, seen: BlockActivations, errors: Mapping[str, Array]
) -> float:
    """The mean relative energy by which errors of linear layers change a block's output.

    `errors` are (rows, out) for the first windows of x. The mean is over positions.
    """
    x, output = x[:_WINDOWS], seen.output[:_WINDOWS]
    by_window = {name: error.reshape(*x.shape[:2], -1) for name, error in errors.items()}
    change = np.square(block.run(x, by_window).output - output).sum(axis=-1)
    return float((change / np.square(output).sum(axis=-1)).mean())


def _rows(inputs: Array) -> Array:
    return inputs.reshape(-1, inputs.shape[-1])


def _without_outliers(
    weights: CheckpointWeights, base: str, inputs: Array, weight: Array
) -> tuple[Array, Array]:
    """Inputs (rows, in) and weight (in, out), with outlier channels set to zero."""
    rows, channels = _rows(inputs), weights.outlier_channels(base)
    if channels is not None:
        rows, weight = rows.copy(), weight.copy()
        rows[:, channels], weight[channels] = 0, 0
    return rows, weight
