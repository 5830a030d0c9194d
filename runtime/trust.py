"""What a graph from elsewhere may hold: issun's own operators, and no file but the bundle's.

ONNX Runtime resolves references to files wherever a tensor may stand, also in attributes and in the
bodies of loops, and computes whatever it is given, also for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from issun.runtime.errors import BundleError
from issun.runtime.files import read_bounded
from issun.runtime.manifest import Manifest
from issun.runtime.proto import parse_model

_MS = "com.microsoft"
_ISSUN = {
    "": (
        "Abs Add Div Flatten Gather Gelu Gemm LayerNormalization MatMul Max Mul QuantizeLinear "
        "ReduceMax Reshape Slice Unsqueeze"
    ),
    _MS: (
        "BiasGelu FastGelu GatherBlockQuantized GroupQueryAttention MatMulIntegerToFloat "
        "MatMulNBits"
    ),
}
# What Optimum makes of a GPT-2, before and after ONNX Runtime's quantizer.
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
_MOST_BYTES = 1 << 31  # that protobuf reads
_VALUES = {"": {"Constant", "ConstantOfShape"}}  # operators with a tensor among their attributes


def check_trusted(path: Path, manifest: Manifest, *, trust: bool) -> None:
    """Raise BundleError for a graph at `path` that issun, or Optimum, does not write.

    With `trust` any operator passes, but still no reference to a file that is not the bundle's.
    """
    try:
        with path.open("rb") as file:
            model = parse_model(read_bounded(file, _MOST_BYTES))
    except Exception as error:  # protobuf has its own DecodeError
        raise BundleError("{path} is no ONNX graph, or damaged.", path=path) from error
    for tensor in _tensors(model.graph):
        _check_reference(path, tensor, manifest)
    found = None if trust else _foreign(model, _OPERATORS[manifest.graph])
    if found is not None:
        raise BundleError(
            "{path} holds {what}, which issun does not write: it could read your files or never "
            "end. Where you trust its author: --trust, or Model.load(trust=True).",
            path=path,
            what=found,
        )
    for tensor in _tensors(model.graph) if manifest.graph == "issun" else ():
        if tensor.external_data and not _is_placed(tensor, manifest):
            raise BundleError(
                "{path} says of {name!r} no place in its file: export the bundle again.",
                path=path,
                name=tensor.name[:100],
            )


def _foreign(model: Any, operators: set[tuple[str, str]]) -> str | None:
    """What the graph holds that no graph of its kind has; None where there is nothing."""
    if model.functions or model.training_info:
        return "functions or training steps"
    if model.graph.sparse_initializer:
        return "sparse tensors"
    for node in model.graph.node:
        name = f"{node.domain}.{node.op_type}".lstrip(".")
        if (node.domain.replace("ai.onnx", ""), node.op_type) not in operators:
            return f"the operator {name[:60]!r}"
        for attribute in node.attribute:
            if _holds_more(attribute) and node.op_type not in _VALUES.get(node.domain, ()):
                return f"a tensor or a graph in the attribute {attribute.name[:60]!r} of {name}"
            if attribute.graphs or attribute.HasField("g"):
                return f"a graph in the attribute {attribute.name[:60]!r} of {name}"
    return None


def _holds_more(attribute: Any) -> bool:
    """Whether an attribute is more than numbers and texts."""
    single = ("t", "g", "sparse_tensor", "tp")
    several = (attribute.tensors, attribute.graphs, attribute.sparse_tensors, attribute.type_protos)
    return any(map(attribute.HasField, single)) or any(map(len, several))


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph and of all graphs in it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            yield attribute.t
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs) if _holds_more(attribute) else ():
                yield from _tensors(inner)


def _check_reference(path: Path, tensor: Any, manifest: Manifest) -> None:
    for field in tensor.external_data:
        if field.key == "location" and field.value not in manifest.files:
            raise BundleError(
                "{path} refers to the file {name!r}, which is not one of the bundle's.",
                path=path,
                name=field.value[:100],
            )


def _is_placed(tensor: Any, manifest: Manifest) -> bool:
    """Whether a tensor names its file, offset and length, each once and within the file."""
    fields = {field.key: field.value for field in tensor.external_data}
    numbers = [fields.get(key, "") for key in ("offset", "length")]
    if "location" not in fields or len(fields) != len(tensor.external_data):
        return False
    if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in numbers):
        return False
    return sum(map(int, numbers)) <= manifest.files[fields["location"]].size
