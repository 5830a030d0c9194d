"""Rounds inputs of int8 linear layers to 7 bits, for CPUs whose integer kernel would overflow.

x86 CPUs without VNNI add two products of an unsigned and a signed byte in 16 bits, which saturate
at 32,767. Exported weights never reach that (`issun.export.quantize`), but those of earlier bundles
may. Inputs of at most 129 and weights of at most 127 give 32,766.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# The constants of earlier bundles for 8 bits, and what replaces them. The middle of a
# symmetric range is 64 with 64 steps on each side; a range without negative values has 129 steps.
_CONSTANTS: dict[str, tuple[np.generic, np.generic]] = {
    "middle": (np.uint8(128), np.uint8(64)),
    "step": (np.float32(1 / 127), np.float32(1 / 64)),
    "fine": (np.float32(1 / 255), np.float32(1 / 129)),
    # The first block rounds what is left over, at most half a step, in further steps.
    "finest": (np.float32(1 / 127 / 254), np.float32(1 / 64 / 128)),
    "ratio": (np.float32(1 / 254), np.float32(1 / 128)),
}
_ZERO_POINTS = ("middle", "low")  # of the inputs of their int8 linear layers
_FITTING = ("middle_64", "middle_127", "low_255")  # of those whose sums fit on every CPU
_INPUTS = 5  # of a product of signed weights; unsigned ones have a zero point as well


def sums_fit(graph: Any) -> bool:
    """Return whether a graph has int8 linear layers that need no change on any CPU."""
    products = _products(graph)
    return bool(products) and all(node.input[4] in _FITTING for node in products)


def reduce_range(graph: Any) -> bool:
    """Round the inputs of int8 linear layers to 7 bits; False for graphs without such layers.

    The graph is changed only if all products of signed weights and their constants are those of an
    exported bundle.
    """
    found = [tensor for tensor in graph.initializer if tensor.name in _CONSTANTS]
    if not all(node.input[4] in _ZERO_POINTS for node in _products(graph)) or not all(
        tensor.raw_data == _CONSTANTS[tensor.name][0].tobytes() for tensor in found
    ):
        return False
    for tensor in found:
        tensor.raw_data = _CONSTANTS[tensor.name][1].tobytes()
    return bool(found)


def _products(graph: Any) -> list[Any]:
    """The products of signed weights."""
    return [
        node
        for node in graph.node
        if node.op_type == "MatMulIntegerToFloat" and len(node.input) == _INPUTS
    ]
