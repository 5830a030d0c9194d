"""Adds the low-rank products of adapters to the linear layers of a graph.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). The matrices of all
adapters stand side by side, and an input has the weight of each adapter for each token. So a batch
may mix adapters, and where all weights are 0, results are those of the graph without adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.errors import BundleError

Array = NDArray[np.float32]
Pair = tuple[Array, Array]  # (in, rank) and (rank, out): y += x @ first @ second

ADAPTER_WEIGHTS = "adapter_weights"  # the input: float32 (batch, sequence, adapters)
_PLACE = "linear."  # how the keys of a graph's metadata begin that name a linear layer's values
_SELECTED = f"{ADAPTER_WEIGHTS}.selected"  # for the rows that `logit_rows` selects
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_INT = 2  # AttributeProto.AttributeType
_EXTERNAL = 1  # TensorProto.DataLocation


class LowRank:
    """The matrices of several adapters, by the names of the linear layers that they change."""

    def __init__(self, adapters: Sequence[Mapping[str, Pair]]) -> None:
        self._count = len(adapters)
        self._matrices: dict[str, Pair] = {}
        self._owners: dict[str, tuple[int, ...]] = {}  # the adapter of each rank
        for name in sorted(set(chain.from_iterable(adapters))):
            found = [(index, pairs[name]) for index, pairs in enumerate(adapters) if name in pairs]
            self._matrices[name] = (
                np.concatenate([down for _, (down, _) in found], axis=1),
                np.concatenate([up for _, (_, up) in found], axis=0),
            )
            self._owners[name] = tuple(i for i, (_, up) in found for _ in range(len(up)))

    def add_to(self, model: Any, options: ort.SessionOptions) -> None:
        """Add the products to a graph, and the matrices to the options of its session.

        Raises BundleError if the graph does not name the linear layers.
        """
        places = _places(model)
        graph = model.graph
        _add_input(graph, self._count)
        weights: dict[tuple[str, tuple[int, ...]], str] = {}
        for name, owners in self._owners.items():
            if name not in places:
                raise BundleError(
                    "The graph does not name its linear layer {name}, as adapters need: export the "
                    "checkpoint again.",
                    name=name,
                )
            source, target, rank = places[name]
            given = _SELECTED if rank == "2" else ADAPTER_WEIGHTS
            if (given, owners) not in weights:
                weights[given, owners] = _spread(graph, given, owners, f"{given}.{len(weights)}")
            _add_product(graph, name, source, target, weights[given, owners])
        for name, matrix in self._tensors():
            tensor = graph.initializer.add(
                name=name, dims=matrix.shape, data_type=_FLOAT, data_location=_EXTERNAL
            )
            tensor.external_data.add(key="location", value="memory")  # no file: see below
        names, matrices = zip(*self._tensors(), strict=True)
        values = [ort.OrtValue.ortvalue_from_numpy(matrix) for matrix in matrices]
        options.add_external_initializers(list(names), values)

    def _tensors(self) -> Iterator[tuple[str, Array]]:
        for name, (down, up) in self._matrices.items():
            yield f"{name}.lora_down", down
            yield f"{name}.lora_up", up


def _places(model: Any) -> dict[str, list[str]]:
    """The input, the output and its rank of each linear layer that the graph names."""
    return {
        entry.key.removeprefix(_PLACE): entry.value.split(" ")
        for entry in model.metadata_props
        if entry.key.startswith(_PLACE)
    }


def _add_input(graph: Any, count: int) -> None:
    """Add the input, and the rows of it that the last block computes."""
    value = type(graph.input[0])(name=ADAPTER_WEIGHTS)
    value.type.tensor_type.elem_type = _FLOAT
    for name in ("batch", "sequence"):
        value.type.tensor_type.shape.dim.add(dim_param=name)
    value.type.tensor_type.shape.dim.add(dim_value=count)
    graph.input.insert(0, value)
    flat = f"{ADAPTER_WEIGHTS}.flat"
    node = graph.node.add(op_type="Flatten", input=[ADAPTER_WEIGHTS], output=[flat])
    node.attribute.add(name="axis", i=2, type=_INT)
    graph.node.add(op_type="Gather", input=[flat, "logit_rows"], output=[_SELECTED])


def _spread(graph: Any, weights: str, owners: Sequence[int], output: str) -> str:
    """Repeat each adapter's weight for its ranks; returns `output`."""
    indices = np.array(owners, np.int64)
    graph.initializer.add(
        name=f"{output}.owners", dims=indices.shape, data_type=_INT64, raw_data=indices.tobytes()
    )
    node = graph.node.add(op_type="Gather", input=[weights, f"{output}.owners"], output=[output])
    node.attribute.add(name="axis", i=-1, type=_INT)
    return output


def _add_product(graph: Any, name: str, source: str, target: str, weights: str) -> None:
    """Add (source @ down * weights) @ up to the value `target`."""
    at = f"{name}.lora"
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output == target:
                node.output[index] = f"{at}.base"
    for kind, inputs, output in (
        ("MatMul", [source, f"{name}.lora_down"], f"{at}.narrow"),
        ("Mul", [f"{at}.narrow", weights], f"{at}.weighted"),
        ("MatMul", [f"{at}.weighted", f"{name}.lora_up"], f"{at}.change"),
        ("Add", [f"{at}.base", f"{at}.change"], target),
    ):
        graph.node.add(op_type=kind, input=inputs, output=[output])
