"""Runs one transformer block in float32 and records the inputs of its linear layers.

The block is built by the same code as the exported graph, with its weights as graph inputs, so it
needs no code for any family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.graph import IR_VERSION, OPSET, DecoderBuilder
from issun.export.kinds import Kind, Precision
from issun.export.lazy import CheckpointWeights
from issun.export.weights import Array
from issun.runtime.weights.session import make_options, session_of

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True, slots=True)
class BlockActivations:
    """A block's output, its keys and values, and the inputs of each linear layer by name.

    Output and inputs are (window, position, width). Keys and values are those of the KV cache,
    (window, head, position, kv_head_dim); keys are rotated.
    """

    output: Array
    keys: Array
    values: Array
    inputs: dict[str, Array]


class Block:
    """Block `layer` of a network, with the current weights in memory."""

    def __init__(
        self, weights: CheckpointWeights, layer: int, *, takes_errors: bool = False
    ) -> None:
        """Build the block; with `takes_errors`, `run` can add errors to its products."""
        self._builder = _BlockBuilder(weights, layer, takes_errors=takes_errors)
        model = self._builder.block_model()
        self._session = session_of(ir.to_proto(model).SerializeToString(), make_options())
        self._network = weights.network

    def weight(self, part: str) -> Array:
        """The weight of a linear layer, such as `qkv`: (in, out)."""
        return self._builder.feeds[f"{self._builder.at}.{part}.weight"]

    def run(self, x: Array, errors: Mapping[str, Array] | None = None) -> BlockActivations:
        """Run the block on x, (window, position, n_embd), one window at a time.

        `errors` are added to the products of linear layers, each (window, position, out).
        """
        windows, length, _ = x.shape
        feeds = self._builder.feeds | self._attention_feeds(length)
        found: list[Array] = []
        for window in range(windows):
            own = {name: array[window : window + 1] for name, array in (errors or {}).items()}
            own = {f"{name}.error": array for name, array in own.items()}
            outputs = self._session.run(None, feeds | own | {"x": x[window : window + 1]})
            if not found:
                found = [np.empty((windows, *array.shape[1:]), np.float32) for array in outputs]
            for array, output in zip(found, outputs, strict=True):
                array[window] = output[0]
        output, keys, values, *inputs = found
        by_name = dict(zip(self._builder.linear_inputs, inputs, strict=True))
        if self._network.gated:
            by_name["gate"] = by_name["up"]
        return BlockActivations(output, keys, values, by_name)

    def _attention_feeds(self, length: int) -> dict[str, NDArray[np.generic]]:
        network = self._network
        empty = np.zeros((1, network.n_kv_head, 0, network.kv_head_dim), np.float32)
        return {
            "seqlens_k": np.array([length - 1], np.int32),
            "query_seqlens": np.array([length], np.int32),
            "total_sequence_length": np.array(length, np.int32),
            **{value.name or "": empty for value in self._builder.past},
        }


class _Float32Weights:
    """The WeightSource of a float32 graph over the same checkpoint."""

    precision: Precision = "float32"

    def __init__(self, weights: CheckpointWeights) -> None:
        self.has, self.linear_shape = weights.has, weights.linear_shape
        self.read = weights.read

    def kind(self, base: str) -> Kind:
        return "float32"

    def floor(self, base: str) -> float | None:
        return None

    def outlier_channels(self, base: str) -> NDArray[np.int64] | None:
        return None

    def tensor(self, name: str) -> ir.TensorProtocol:
        return ir.tensor(self.read(name), name=name)


class _BlockBuilder(DecoderBuilder):
    """Builds one block whose weights are graph inputs, which are neither serialized nor copied."""

    def __init__(self, weights: CheckpointWeights, layer: int, *, takes_errors: bool) -> None:
        self._source = _Float32Weights(weights)
        super().__init__(weights.network, self._source, None)
        self.at, self._layer, self._takes_errors = f"h.{layer}", layer, takes_errors
        self.feeds: dict[str, Array] = {}
        self.linear_inputs: dict[str, ir.Value] = {}

    def block_model(self) -> ir.Model:
        """A model from x to the output, keys, values and inputs of linear layers."""
        x = ir.val("x", _FLOAT, ("batch", "sequence", self.network.n_embd))
        outputs = [self.block(x, self._layer), *self.present, *self.linear_inputs.values()]
        for value in outputs:
            value.dtype = _FLOAT
        weights = [self._shared[name] for name in self.feeds]
        lengths = [self.seqlens_k, self.query_seqlens, self.total]
        graph = ir.Graph(
            [x, *lengths, *self.past, *weights],
            outputs,
            nodes=self.tape.nodes,
            initializers=self.tape.initializers,
            opset_imports={"": OPSET, "com.microsoft": 1},
            name="block",
        )
        return ir.Model(graph, ir_version=IR_VERSION)

    def weight(self, name: str) -> ir.Value:
        """The weight as an input of the graph."""
        if name not in self._shared:
            # ONNX Runtime would copy a transposed array in every run.
            self.feeds[name] = np.ascontiguousarray(self._source.read(name))
            self._shared[name] = ir.val(name, _FLOAT, self.feeds[name].shape)
        return self._shared[name]

    def linear(self, x: ir.Value, name: str) -> ir.Value:
        """x @ weight, plus an error that is zero by default."""
        part = name.rpartition(".")[2]
        if part != "gate":  # has the same input as `up`
            self.linear_inputs[part] = x
        product = super().linear(x, name)
        if not self._takes_errors:
            return product
        error = f"{part}.error"
        self.feeds[error] = np.zeros((1, 1, 1), np.float32)
        self._shared[error] = ir.val(error, _FLOAT, ("batch", "rows", "columns"))
        return self.op("Add", [product, self._shared[error]])

    def select_rows(self, x: ir.Value) -> ir.Value:
        """All rows, also in the last block: calibration needs every position."""
        return x
