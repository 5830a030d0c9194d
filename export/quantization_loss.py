"""The quantization error of a linear layer's output."""

from __future__ import annotations

import numpy as np

from issun.export.config import ACTIVATION_FLOOR
from issun.export.lazy import DOWN_PROJ, LINEAR_BLOCK, Kind, Precision
from issun.export.quantize import (
    dequantize_blocks,
    dequantize_columns,
    fake_quantize_rows,
    fake_quantize_shifted,
    quantize_blocks,
    quantize_columns,
)
from issun.export.smoothing import Loss
from issun.export.weights import Array


def product_loss(precision: Precision) -> Loss | None:
    """The squared error of (rows, in) @ (in, out) in a precision; None for float32.

    For mixed precision it is the error of int4, which outlier channels increase most.
    """
    if precision == "float32":
        return None
    kind: Kind = "int8" if precision == "int8" else "int4"

    def loss(inputs: Array, weight: Array) -> float:
        quantized = quantized_product(inputs, weight, kind)
        return float(np.square((quantized - inputs @ weight).astype(np.float64)).sum())

    return loss


def quantized_product(inputs: Array, weight: Array, kind: Kind, name: str = "") -> Array:
    """(rows, in) @ (in, out) as the linear layer `name` computes it in a precision."""
    if kind == "float32":
        return inputs @ weight
    if kind == "int8":
        if name.endswith(DOWN_PROJ):
            rounded = fake_quantize_shifted(inputs, ACTIVATION_FLOOR)
        else:
            rounded = fake_quantize_rows(inputs)
        return rounded @ dequantize_columns(quantize_columns(weight))
    rows = weight.T
    quantized = quantize_blocks(lambda a, b: rows[a:b], rows.shape, bits=4, block=LINEAR_BLOCK)
    dequantized = dequantize_blocks(quantized, bits=4, width=rows.shape[1])
    product: Array = fake_quantize_rows(inputs, LINEAR_BLOCK) @ dequantized.T
    return product
