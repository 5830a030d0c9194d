"""int8 weights as unsigned bytes, for CPUs whose kernel for signed ones saturates.

ONNX Runtime converts them where it is told to, but at every load and into memory of its own, which
the 1.3 B shape takes 1.5 GB and ten seconds for. Here they are converted once, into the file of
packed weights, and loads map them from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_OPERATOR = "MatMulIntegerToFloat"
_WEIGHT, _ZERO_POINT = 1, 5  # among its inputs
_UINT8, _INT8 = 2, 3  # TensorProto.DataType
_ZERO = "unsigned_zero"


def flip(part: bytes) -> bytes:
    """Signed bytes 128 higher, as unsigned ones."""
    return (np.frombuffer(part, np.uint8) ^ 0x80).tobytes()


def signed_weights(graph: Any) -> list[Any]:
    """The initializers in data files that products of integers read as signed bytes."""
    products = {node.input[_WEIGHT] for node in graph.node if node.op_type == _OPERATOR}
    return [
        tensor
        for tensor in graph.initializer
        if tensor.name in products and tensor.data_type == _INT8 and tensor.external_data
    ]


def read_unsigned(graph: Any) -> None:
    """Let the graph take these for unsigned bytes with a zero of 128, which `flip` makes of them.

    Sums are the same integers, and so the products the same numbers.
    """
    names = set()
    for tensor in signed_weights(graph):
        tensor.data_type = _UINT8
        names.add(tensor.name)
    for node in graph.node:
        if node.op_type == _OPERATOR and node.input[_WEIGHT] in names:
            missing = _ZERO_POINT - len(node.input)
            node.input.extend([*[""] * missing, _ZERO])
    if names:
        graph.initializer.add(name=_ZERO, data_type=_UINT8, raw_data=b"\x80")
