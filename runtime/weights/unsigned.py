"""Converts int8 weights to unsigned bytes, for CPUs whose kernel for signed ones saturates.

ONNX Runtime can convert them too, but does so at every load and into private memory, which takes
1.5 GB and ten seconds for the 1.3 B shape. Here they are converted once and stored with the packed
weights, from where later loads map them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_OPERATOR = "MatMulIntegerToFloat"
_WEIGHT, _ZERO_POINT = 1, 5  # indices of inputs
_UINT8, _INT8 = 2, 3  # TensorProto.DataType
_ZERO = "unsigned_zero"


def to_unsigned(part: bytes) -> bytes:
    """Add 128 to signed bytes, which gives unsigned ones."""
    return (np.frombuffer(part, np.uint8) ^ 0x80).tobytes()


def signed_weights(graph: Any) -> list[Any]:
    """Return the signed-byte initializers in data files that integer products read."""
    products = {node.input[_WEIGHT] for node in graph.node if node.op_type == _OPERATOR}
    return [
        tensor
        for tensor in graph.initializer
        if tensor.name in products and tensor.data_type == _INT8 and tensor.external_data
    ]


def read_unsigned(graph: Any) -> None:
    """Change the graph to read these weights as unsigned bytes with a zero point of 128.

    The weights must be converted by `to_unsigned`. The integer sums, and so the results, are the
    same.
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
