"""What the product of activations and a weight loses once both are quantized."""

from __future__ import annotations

import numpy as np

from issun.export.lazy import LINEAR_BLOCK, Precision
from issun.export.quantize import (
    dequantize_blocks,
    dequantize_columns,
    quantize_blocks,
    quantize_columns,
    round_rows,
)
from issun.export.smoothing import Error
from issun.export.weights import Array


def product_error(precision: Precision) -> Error | None:
    """The squared error of (rows, in) @ (in, out) in a precision; None for float32."""
    match precision:
        case "int8":
            return _int8
        case "int4":
            return _int4
    return None


def _int8(inputs: Array, weight: Array) -> float:
    rounded = round_rows(inputs) @ dequantize_columns(quantize_columns(weight))
    return _squared(rounded, inputs @ weight)


def _int4(inputs: Array, weight: Array) -> float:
    rows = np.ascontiguousarray(weight.T)
    made = quantize_blocks(lambda a, b: rows[a:b], rows.shape, bits=4, block=LINEAR_BLOCK)
    back = dequantize_blocks(made, bits=4, width=rows.shape[1])
    return _squared(round_rows(inputs, LINEAR_BLOCK) @ back.T, inputs @ weight)


def _squared(found: Array, exact: Array) -> float:
    return float(np.square((found - exact).astype(np.float64)).sum())
