"""The quantization error of a linear layer's output."""

from __future__ import annotations

import numpy as np

from issun.export.kinds import BLOCKS, Kind
from issun.export.quantize import (
    Quantized,
    dequantize_blocks,
    dequantize_columns,
    fake_quantize_rows,
    fake_quantize_shifted,
    quantize_blocks,
    quantize_column_pairs,
    quantize_grouped,
)
from issun.export.smoothing import Loss
from issun.export.weights import Array


def product_loss(kind: Kind) -> Loss:
    """The squared error of (rows, in) @ (in, out) in a precision."""

    def loss(inputs: Array, weight: Array) -> float:
        quantized = quantized_product(inputs, weight, kind)
        return float(np.square((quantized - inputs @ weight).astype(np.float64)).sum())

    return loss


def quantized_product(
    inputs: Array, weight: Array, kind: Kind, floor: float | None = None
) -> Array:
    """(rows, in) @ (in, out) as a linear layer computes it in a precision, rounded to nearest.

    With a `floor` the inputs of an int8 linear layer are never below its negative.
    """
    if kind == "float32":
        return inputs @ weight
    return product(inputs, quantize_linear(weight, kind, floor), kind, floor)


def quantize_linear(weight: Array, kind: Kind, floor: float | None = None) -> Quantized:
    """Round a weight (in, out) to nearest in a precision other than float32.

    With a `floor` an int8 weight has scales for each of its groups of input channels.
    """
    if kind == "int8":
        return quantize_column_pairs(weight) if floor is None else quantize_grouped(weight)
    rows, form = weight.T, BLOCKS[kind]
    return quantize_blocks(
        lambda start, stop: rows[start:stop], rows.shape, bits=form.bits, block=form.block
    )


def product(inputs: Array, quantized: Quantized, kind: Kind, floor: float | None = None) -> Array:
    """The product of inputs (rows, in), rounded as the operator does, and a quantized weight."""
    if kind == "int8":
        if floor is not None:
            rounded = fake_quantize_shifted(inputs, floor)
        else:
            rounded = fake_quantize_rows(inputs)
        return rounded @ dequantize_columns(quantized)
    form = BLOCKS[kind]
    dequantized = dequantize_blocks(quantized, bits=form.bits, width=inputs.shape[1])
    found: Array = fake_quantize_rows(inputs, form.block) @ dequantized.T
    return found
