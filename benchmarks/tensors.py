"""The tensors of a bundle's graph: their sizes, and which of them a decode step reads whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from issun.runtime.errors import BundleError
from issun.runtime.weights.proto import parse_model

# A tensor that goes to no other operators is a table, of which a step reads a few rows: embeddings,
# positions and rotary angles. The scales of an embedding go through Unsqueeze.
_TABLE_OPERATORS = {"Gather", "GatherBlockQuantized", "GroupQueryAttention", "Unsqueeze"}
_FLOAT, _UINT8, _INT8, _FLOAT16 = 1, 2, 3, 10  # onnx.TensorProto.DataType
_SCALES = (".scale", ".inlier_mask")  # of a group of channels: `.scale_0`


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """An initializer of a graph; `values` counts a network's parameters in it, not scales."""

    nbytes: int
    values: int
    is_table: bool


def stored_tensors(graph: Path) -> dict[str, StoredTensor]:
    """All initializers of the graph at `graph` by name; raises BundleError for a damaged one."""
    try:
        model = parse_model(graph.read_bytes()).graph
    except Exception as error:  # protobuf has its own DecodeError
        raise BundleError("{path} is not an ONNX graph, or is damaged.", path=graph) from error
    operators: dict[str, set[str]] = {}
    bits: dict[str, int] = {}
    for node in model.node:
        for name in node.input:
            operators.setdefault(name, set()).add(node.op_type)
        own = [attribute.i for attribute in node.attribute if attribute.name == "bits"]
        bits |= dict.fromkeys(node.input, own[0]) if own else {}
    found = {}
    for tensor in model.initializer:
        nbytes = _nbytes(tensor)
        is_table = operators.get(tensor.name, set()) <= _TABLE_OPERATORS
        found[tensor.name] = StoredTensor(
            nbytes, _values(tensor, nbytes, bits.get(tensor.name, 8)), is_table
        )
    return found


def _nbytes(tensor: Any) -> int:
    fields = {field.key: field.value for field in tensor.external_data}
    return int(fields["length"]) if fields else len(tensor.raw_data)


def _values(tensor: Any, nbytes: int, bits: int) -> int:
    """The number of values, padding included; 0 for what is not a parameter of the network.

    `bits` are those of a value in the blocks of MatMulNBits and GatherBlockQuantized.
    """
    if any(part in tensor.name for part in _SCALES) or tensor.name.startswith("rotary."):
        return 0
    sizes = {_FLOAT: 32, _FLOAT16: 16, _INT8: 8, _UINT8: bits}
    return 8 * nbytes // sizes[tensor.data_type] if tensor.data_type in sizes else 0
