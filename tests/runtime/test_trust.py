"""Foreign bundles: what their graphs may contain, and how errors are reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import BundleError, Model, SamplingParams
from issun.runtime.manifest import read_manifest, sha256_of
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.trust import check_trusted
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime.packed import load

# The operators in the graphs of each earlier export route.
EARLIER = {
    "first int8": "Gather Add LayerNormalization Abs ReduceMax Max Div QuantizeLinear Mul Reshape",
    "int4": "Unsqueeze Gather Reshape Slice Add LayerNormalization Flatten",
    "float32": "Gather Add LayerNormalization MatMul Gemm Gelu Flatten",
}


def change(folder: Path, act: Callable[[Any], object]) -> None:
    """Change the graph of the bundle with `act`, and its size in the manifest."""
    path = folder / "model.onnx"
    model = parse_model(path.read_bytes())
    act(model)
    path.write_bytes(model.SerializeToString())
    describe(folder, "model.onnx")


def describe(folder: Path, name: str) -> None:
    """Update the manifest to the current files, as the bundle's author would."""
    path = folder / name
    manifest = json.loads((folder / "issun.json").read_text(encoding="utf-8"))
    manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "issun.json").write_text(json.dumps(manifest), encoding="utf-8")


def load_any(folder: Path, **options: object) -> None:
    Model.load(folder, threads=1, **options).close()  # type: ignore[arg-type]


def inner_graph(model: Any, name: str, location: str) -> None:
    """Return a control-flow node whose body has a tensor in a file."""
    node = model.graph.node.add(op_type=name)
    attribute = node.attribute.add(name="body")
    tensor = attribute.g.initializer.add(name="secret", data_type=3)
    tensor.external_data.add(key="location", value=location)


def constant(model: Any, location: str | None) -> None:
    node = model.graph.node.add(op_type="Constant")
    attribute = node.attribute.add(name="value")
    attribute.t.data_type = 3
    attribute.t.raw_data = b"x"
    if location:
        attribute.t.external_data.add(key="location", value=location)


FOREIGN: dict[str, Callable[[Any], object]] = {
    "Loop": lambda m: m.graph.node.add(op_type="Loop"),
    "If with a body": lambda m: inner_graph(m, "If", "model.onnx.data"),
    "Scan": lambda m: m.graph.node.add(op_type="Scan"),
    "another domain": lambda m: m.graph.node.add(op_type="Add", domain="evil.corp"),
    "an operator of Microsoft's": lambda m: m.graph.node.add(
        op_type="Tokenizer", domain="com.microsoft"
    ),
    "memory without end": lambda m: m.graph.node.add(op_type="Expand"),
    "a constant": lambda m: constant(m, None),
    "functions": lambda m: m.functions.add(),
    "training": lambda m: m.training_info.add(),
    "a sparse tensor": lambda m: m.graph.sparse_initializer.add(),
    "a tensor in an attribute": lambda m: m.graph.node[0].attribute.add(name="x").tensors.add(),
    "a body in an attribute": lambda m: m.graph.node[0].attribute.add(name="x").graphs.add(),
    "a type in an attribute": lambda m: m.graph.node[0].attribute.add(name="x").type_protos.add(),
}


@pytest.mark.parametrize("act", FOREIGN.values(), ids=FOREIGN)
def test_a_graph_that_issun_does_not_export_is_refused(
    folder: Path, act: Callable[[Any], object]
) -> None:
    change(folder, act)
    with pytest.raises(BundleError, match=r"which issun does not export.*--trust"):
        load_any(folder)


def nested(model: Any, location: str) -> None:
    node = model.graph.node.add(op_type="If")
    inner = node.attribute.add(name="body").graphs.add().node.add(op_type="Loop")
    tensor = inner.attribute.add(name="body").g.initializer.add(name="x")
    tensor.external_data.add(key="location", value=location)


REFERENCES: dict[str, Callable[[Any, str], object]] = {
    "an initializer": lambda m, name: m.graph.initializer.add(name="x").external_data.add(
        key="location", value=name
    ),
    "a constant": constant,
    "a body": lambda m, name: inner_graph(m, "If", name),
    "a body in a body": nested,
    "a sparse tensor": lambda m, name: m.graph.sparse_initializer.add().values.external_data.add(
        key="location", value=name
    ),
    "a tensor in a list": lambda m, name: (
        m.graph.node[0]
        .attribute.add(name="x")
        .tensors.add()
        .external_data.add(key="location", value=name)
    ),
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "secret.txt", "a/../../x", ""])
@pytest.mark.parametrize("act", REFERENCES.values(), ids=REFERENCES)
def test_only_the_bundle_s_files_are_read(
    folder: Path, act: Callable[[Any, str], object], name: str, trust: bool
) -> None:
    (folder.parent / "secret.txt").write_text("secret", encoding="utf-8")
    (folder / "secret.txt").write_text("secret", encoding="utf-8")
    if act is constant and not name:
        pytest.skip("that is no reference")
    change(folder, lambda model: act(model, name))
    with pytest.raises(BundleError, match="not part of the bundle"):
        load_any(folder, trust=trust)


def test_a_trusted_graph_is_loaded(folder: Path) -> None:
    def add_identity(model: Any) -> None:
        node = model.graph.node.add(op_type="Identity", input=["input_ids"])
        node.MergeFromString(b"\x12\x06unused")  # its output

    change(folder, add_identity)
    with pytest.raises(BundleError, match="'Identity'"):
        load_any(folder)
    load_any(folder, trust=True)


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize("kv_cache", ["float32", "int8"])
def test_what_issun_exports_needs_no_trust(
    bundle: Callable[..., Path], precision: str, kv_cache: str
) -> None:
    load_any(bundle("head-20-width-100", precision, kv_cache=kv_cache), kv_cache=kv_cache)


@pytest.mark.parametrize("operators", EARLIER.values(), ids=EARLIER)
def test_what_earlier_versions_exported_needs_no_trust(folder: Path, operators: str) -> None:
    def replace(model: Any) -> None:
        del model.graph.node[:]
        for name in operators.split():
            model.graph.node.add(op_type=name)

    change(folder, replace)
    check_trusted(folder / "model.onnx", read_manifest(folder), trust=False)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x3a\x05\x0a\x03abc", None])
def test_a_damaged_graph_is_an_error(
    folder: Path, cache: WeightCache, content: bytes | None
) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-2000] if content is None else content)
    describe(folder, "model.onnx")
    with pytest.raises(BundleError):
        load_any(folder)
    with pytest.raises(BundleError), load(folder):  # with packed weights
        pass


@pytest.mark.parametrize("name", ["model.onnx", "spiece.model"])
def test_a_small_file_is_compared_with_its_hash_at_every_load(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} differs from the file that was exported"):
        load_any(folder)


def edit_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "issun.json").read_text(encoding="utf-8"))
    manifest["architecture"] |= changes
    (folder / "issun.json").write_text(json.dumps(manifest), encoding="utf-8")


def rename_input(model: Any, name: str) -> None:
    for node in model.graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = ""


def test_more_positions_than_the_graph_has_are_an_error(folder: Path) -> None:
    edit_manifest(folder, n_positions=5000)
    with Model.load(folder, threads=1) as model, pytest.raises(BundleError, match="failed to run"):
        model.score([5] * 1200)


@pytest.mark.parametrize("name", ["position_ids", "seqlens_k", "total_sequence_length"])
def test_a_graph_without_an_input_is_an_error(folder: Path, name: str) -> None:
    change(folder, lambda model: rename_input(model, name))
    with pytest.raises(BundleError), Model.load(folder, threads=1) as model:
        model.generate([5, 6], SamplingParams(max_new_tokens=2))
