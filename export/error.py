"""What the product of activations and a weight loses once both are quantized."""

from __future__ import annotations

import numpy as np

from issun.export.config import ACTIVATION_FLOOR
from issun.export.lazy import LIFTED, LINEAR_BLOCK, Kind, Precision
from issun.export.quantize import (
    dequantize_blocks,
    dequantize_columns,
    quantize_blocks,
    quantize_columns,
    round_lifted,
    round_rows,
)
from issun.export.smoothing import Error
from issun.export.weights import Array


def product_error(precision: Precision) -> Error | None:
    """The squared error of (rows, in) @ (in, out) in a precision; None for float32.

    Where linears differ it is that of 4 bits, which channels that stick out hurt most.
    """
    if precision == "float32":
        return None
    kind: Kind = "int8" if precision == "int8" else "int4"

    def error(inputs: Array, weight: Array) -> float:
        found = rounded_product(inputs, weight, kind)
        return float(np.square((found - inputs @ weight).astype(np.float64)).sum())

    return error


def rounded_product(inputs: Array, weight: Array, kind: Kind, name: str = "") -> Array:
    """(rows, in) @ (in, out) as the linear `name` computes it in a precision."""
    if kind == "float32":
        return inputs @ weight
    if kind == "int8":
        lifted = name.endswith(LIFTED)
        rounded = round_lifted(inputs, ACTIVATION_FLOOR) if lifted else round_rows(inputs)
        return rounded @ dequantize_columns(quantize_columns(weight))
    rows = weight.T
    made = quantize_blocks(lambda a, b: rows[a:b], rows.shape, bits=4, block=LINEAR_BLOCK)
    back = dequantize_blocks(made, bits=4, width=rows.shape[1])
    found: Array = round_rows(inputs, LINEAR_BLOCK) @ back.T
    return found
