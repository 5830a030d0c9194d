"""Rejects graphs with operators that issun does not export or with references to foreign files.

ONNX Runtime resolves file references of any tensor, even in attributes and loop bodies, and runs
any graph that it is given, even one that never ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from issun.runtime.errors import BundleError
from issun.runtime.files import read_bounded
from issun.runtime.manifest import Manifest
from issun.runtime.weights.proto import parse_model

_MS = "com.microsoft"
_ISSUN = {
    "": (
        "Abs Add Cast Concat DequantizeLinear Div Flatten Gather Gelu Gemm LayerNormalization "
        "MatMul Max Mul QuantizeLinear ReduceMax Relu Reshape Sigmoid "
        "SimplifiedLayerNormalization Slice Split Sub Sum Unsqueeze"
    ),
    _MS: (
        "BiasGelu FastGelu GatherBlockQuantized GroupQueryAttention MatMulIntegerToFloat "
        "MatMulNBits"
    ),
}
# What Optimum exports for a GPT-2, before and after ONNX Runtime's quantizer.
_OPTIMUM = {
    "": (
        "Add And Cast Concat Constant ConstantOfShape DequantizeLinear Div DynamicQuantizeLinear "
        "Equal Erf Expand Flatten Gather Gemm Greater GreaterOrEqual Identity IsNaN "
        "LayerNormalization Less LessOrEqual MatMul MatMulInteger Mul Neg Not Or Pow "
        "QuantizeLinear Range ReduceMean Reshape Shape Slice Softmax Split Sqrt Squeeze Sub Tanh "
        "Transpose Trilu Unsqueeze Where"
    ),
}
_OPERATORS = {
    kind: {(domain, name) for domain, names in table.items() for name in names.split()}
    for kind, table in (("issun", _ISSUN), ("optimum", _OPTIMUM))
}
_MAX_BYTES = 1 << 31  # protobuf's limit
_TENSOR_ATTRIBUTES = {"": {"Constant", "ConstantOfShape"}}  # operators with a tensor attribute


def check_trusted(path: Path, manifest: Manifest, *, trust: bool) -> None:
    """Raise BundleError if neither issun nor Optimum can have exported the graph at `path`.

    With `trust`, any operator is allowed, but no reference to a file outside the bundle.
    """
    try:
        with path.open("rb") as file:
            model = parse_model(read_bounded(file, _MAX_BYTES))
    except Exception as error:  # protobuf has its own DecodeError
        raise BundleError("{path} is not an ONNX graph, or is damaged.", path=path) from error
    for tensor in _tensors(model.graph):
        _check_reference(path, tensor, manifest)
    disallowed = None if trust else _find_disallowed(model, _OPERATORS[manifest.graph])
    if disallowed is not None:
        raise BundleError(
            "{path} contains {what}, which issun does not export: it could read your files or "
            "run forever. If you trust its author, use --trust or Model.load(trust=True).",
            path=path,
            what=disallowed,
        )
    for tensor in _tensors(model.graph) if manifest.graph == "issun" else ():
        if tensor.external_data and not _has_valid_range(tensor, manifest):
            raise BundleError(
                "{path} does not say where the tensor {name!r} is stored: export the bundle again.",
                path=path,
                name=tensor.name[:100],
            )


def _find_disallowed(model: Any, operators: set[tuple[str, str]]) -> str | None:
    """Describe the first element that no graph of its kind has; None if there is none."""
    if model.functions or model.training_info:
        return "functions or training steps"
    if model.graph.sparse_initializer:
        return "sparse tensors"
    for node in model.graph.node:
        name = f"{node.domain}.{node.op_type}".lstrip(".")
        if (node.domain.replace("ai.onnx", ""), node.op_type) not in operators:
            return f"the operator {name[:60]!r}"
        for attribute in node.attribute:
            if _has_tensor_or_graph(attribute) and node.op_type not in _TENSOR_ATTRIBUTES.get(
                node.domain, ()
            ):
                return f"a tensor or a graph in the attribute {attribute.name[:60]!r} of {name}"
            if attribute.graphs or attribute.HasField("g"):
                return f"a graph in the attribute {attribute.name[:60]!r} of {name}"
    return None


def _has_tensor_or_graph(attribute: Any) -> bool:
    """Return whether an attribute contains a tensor, graph or type."""
    single = ("t", "g", "sparse_tensor", "tp")
    several = (attribute.tensors, attribute.graphs, attribute.sparse_tensors, attribute.type_protos)
    return any(map(attribute.HasField, single)) or any(map(len, several))


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a graph and its subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            yield attribute.t
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (
                (attribute.g, *attribute.graphs) if _has_tensor_or_graph(attribute) else ()
            ):
                yield from _tensors(inner)


def _check_reference(path: Path, tensor: Any, manifest: Manifest) -> None:
    for field in tensor.external_data:
        if field.key == "location" and field.value not in manifest.files:
            raise BundleError(
                "{path} refers to the file {name!r}, which is not part of the bundle.",
                path=path,
                name=field.value[:100],
            )


def _has_valid_range(tensor: Any, manifest: Manifest) -> bool:
    """Return whether a tensor has one file, offset and length each, and lies within the file."""
    fields = {field.key: field.value for field in tensor.external_data}
    numbers = [fields.get(key, "") for key in ("offset", "length")]
    if "location" not in fields or len(fields) != len(tensor.external_data):
        return False
    if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in numbers):
        return False
    return sum(map(int, numbers)) <= manifest.files[fields["location"]].size
