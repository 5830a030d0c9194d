"""Rewrites the 8-bit head as integer products, for kernels that have no fast MatMulNBits.

Where MatMulNBits has no integer kernel for 8-bit weights (WebAssembly, ARM without dot products),
it converts the whole head to float32 at every step. MatMulIntegerToFloat has a fast kernel
everywhere, but one scale for each output: the head becomes one product for each block of inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_MS = "com.microsoft"
_FLOAT, _UINT8, _INT64 = 1, 2, 7  # TensorProto.DataType
_INT = 2  # AttributeProto.AttributeType


def split_head(graph: Any) -> bool:
    """Replace the 8-bit MatMulNBits that computes the logits; False if there is none.

    Each block of inputs gets its own scale, as in MatMulNBits with `accuracy_level` 4, so logits
    differ by the rounding of sums alone. The blocks of the weight are cut and transposed by
    nodes of constants, which ONNX Runtime computes once, when it opens the graph.
    """
    head = next((node for node in graph.node if "logits" in node.output), None)
    if head is None or head.op_type != "MatMulNBits" or int_attribute(head, "bits") != 8:
        return False
    x, weight, scale = head.input[:3]
    width, size = int_attribute(head, "K"), int_attribute(head, "block_size")
    blocks = -(-width // size)
    graph.node.remove(head)
    new = Nodes(graph, "split_head")
    if blocks * size > width:  # the last block is padded
        x = new.op("Pad", [x, new.constant("padding", np.array([0, 0, 0, blocks * size - width]))])
    x = new.op("Reshape", [x, new.constant("shape", np.array([0, blocks, size]))])
    quantized, peak = quantize_groups(new, x)
    zero = new.constant("zero", np.uint8(128))
    step = new.constant("step", np.float32(1 / 127))
    products = []
    for block in range(blocks):
        index = new.constant(f"block.{block}", np.int64(block))
        taken, weights, scales, peaks = (
            new.op("Gather", [name, index], axis=1) for name in (quantized, weight, scale, peak)
        )
        columns = new.op("Transpose", [weights])  # (size, outputs)
        product = new.op(
            "MatMulIntegerToFloat", [taken, columns, step, scales, zero, zero], domain=_MS
        )
        products.append(new.op("Mul", [product, peaks]))
    new.op("Sum", products, output="logits")
    return True


def quantize_groups(new: Nodes, x: str) -> tuple[str, str]:
    """Add bytes around 128 for x (rows, blocks, size), and the largest magnitude of each block.

    Returns the names of the two.
    """
    last = new.constant("last", np.array([-1]))
    peak = new.op("ReduceMax", [new.op("Abs", [x]), last])  # (rows, blocks, 1)
    peak = new.op("Max", [peak, new.constant("least", np.float32(1e-30))])  # no 0 / 0
    step, zero = new.constant("step", np.float32(1 / 127)), new.constant("zero", np.uint8(128))
    return new.op("QuantizeLinear", [new.op("Div", [x, peak]), step, zero]), peak


def int_attribute(node: Any, name: str) -> int:
    """Return an integer attribute of a node."""
    return next(int(a.i) for a in node.attribute if a.name == name)


class Nodes:
    """Appends nodes and constants to a graph; the names of new values begin with `prefix`."""

    def __init__(self, graph: Any, prefix: str) -> None:
        self._graph, self._prefix = graph, prefix
        self._constants: set[str] = set()
        self._count = 0

    def op(
        self, kind: str, inputs: list[str], *, domain: str = "", output: str = "", **ints: int
    ) -> str:
        """Append a node with integer attributes, and return its output's name."""
        self._count += 1
        output = output or f"{self._prefix}.{self._count}"
        node = self._graph.node.add(op_type=kind, domain=domain, input=inputs, output=[output])
        for name, value in ints.items():
            node.attribute.add(name=name, i=value, type=_INT)
        return output

    def constant(self, name: str, value: np.ndarray[Any, Any] | np.generic) -> str:
        """Add a constant once, and return its name."""
        name = f"{self._prefix}.{name}"
        if name not in self._constants:
            kinds = {np.dtype(np.float32): _FLOAT, np.dtype(np.uint8): _UINT8}
            kind = kinds.get(value.dtype, _INT64)
            self._graph.initializer.add(
                name=name, dims=value.shape, data_type=kind, raw_data=value.tobytes()
            )
            self._constants.add(name)
        return name
