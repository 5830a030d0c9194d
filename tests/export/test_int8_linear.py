"""An int8 linear layer's graph, against numpy: inputs of the first block are rounded twice."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from issun.export.graph import IR_VERSION, OPSET, DecoderBuilder
from issun.export.kinds import Kind, Precision
from issun.export.quantize import row_groups
from issun.export.weights import Array
from issun.runtime.weights.session import make_options, session_of


class OneLinear:
    """The int8 values (in, out) of a linear layer without bias, each output with scale 1/100.

    With a `floor` they are those of each group of inputs, one below the other.
    """

    precision: Precision = "int8"

    def __init__(self, values: NDArray[np.int8], floor: float | None = None) -> None:
        self.values, self._floor = values, floor

    def kind(self, base: str) -> Kind:
        return "int8"

    def tensor(self, name: str) -> ir.TensorProtocol:
        part, group = name.rpartition(".")[2].partition("_")[::2]
        if part == "folded":  # the bias, without what subtracts the floor
            return ir.tensor(np.zeros(self.values.shape[1], np.float32), name=name)
        if part == "scale":
            return ir.tensor(np.full(self.values.shape[1], 0.01, np.float32), name=name)
        values = (
            np.split(self.values, row_groups(len(self.values)))[int(group)]
            if group
            else self.values
        )
        return ir.tensor(values, name=name)

    def linear_shape(self, name: str) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def has(self, name: str) -> bool:
        return not name.endswith(".bias")

    def floor(self, base: str) -> float | None:
        return self._floor

    def outlier_channels(self, base: str) -> None:
        return None


def int8_graph(values: NDArray[np.int8], name: str, floor: float | None = None) -> bytes:
    """The graph of an int8 linear layer, from x (rows, in) to x times the weight `values` / 100.

    With a `floor`, which x is never below the negative of, the product of x + `floor`.
    """
    builder = DecoderBuilder(cast(Any, None), OneLinear(values, floor), None)
    builder.lead = [0]
    given = ir.val("x", ir.DataType.FLOAT, ("rows", len(values)))
    product = builder.affine(given, name)
    product.dtype = ir.DataType.FLOAT
    graph = ir.Graph(
        [given],
        [product],
        nodes=builder.tape.nodes,
        initializers=builder.tape.initializers,
        opset_imports={"": OPSET, "com.microsoft": 1},
        name="linear",
    )
    return ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()


def int8_product(x: Array, values: NDArray[np.int8], name: str) -> Array:
    """x (rows, in) times the weight `values` / 100, by the graph of an int8 linear layer."""
    session = session_of(int8_graph(values, name), make_options(1))
    found: Array = session.run(None, {"x": x})[0]
    return found


def test_inputs_of_the_first_block_are_rounded_twice_by_hand() -> None:
    weight = 100 * np.eye(3, dtype=np.int8)
    x = np.float32([[2, 1, 0]])  # 1 is 63.5 steps of 2 / 127, and rounded to even
    np.testing.assert_allclose(int8_product(x, weight, "h.1.qkv"), [[2, 64 * 2 / 127, 0]])
    # There steps are 2 / 64, and 128 to a step the second time.
    x = np.float32([[2, 1 + 3.3 * 2 / 64 / 128, 0]])
    expected = [[2, 1 + 3 * 2 / 64 / 128, 0]]
    np.testing.assert_allclose(int8_product(x, weight, "h.0.qkv"), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_inputs_of_the_first_block_are_rounded_twice(scale: float) -> None:
    rng = np.random.default_rng(0)
    x = (scale * rng.normal(size=(7, 96))).astype(np.float32)
    # Without VNNI, larger values could overflow the sum of two products.
    values = rng.integers(-64, 64, (96, 40)).astype(np.int8)
    peak = np.abs(x).max(axis=-1, keepdims=True)
    once = np.rint(x / peak * np.float32(127)) / 127
    first = np.rint(x / peak * np.float32(64)) / 64
    twice = first + np.rint((x / peak - first) * 64 * 128) / (64 * 128)
    for name, rounded in (("h.1.up", once), ("h.0.up", twice)):
        expected = peak * (rounded @ (values / 100))
        found = int8_product(x, values, name)
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    assert np.abs(peak * twice - x).max() <= 0.5001 * peak.max() / (64 * 128)
