"""The low-rank products that adapters add to a graph, with numbers by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from issun.runtime import BundleError
from issun.runtime.weights.low_rank import ADAPTER_WEIGHTS, LowRank, Pair
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.session import session_of

X = np.array([[[1, 2], [3, 4]]], np.float32)  # (batch, sequence, in)


def graph() -> bytes:
    """y = x @ identity, and z = y's row that `logit_rows` selects @ identity."""
    tape = ir.tape.Tape()
    x = ir.val("x", ir.DataType.FLOAT, ("batch", "sequence", 2))
    rows = ir.val("logit_rows", ir.DataType.INT64, ("rows",))
    identity = tape.initializer(ir.tensor(np.eye(2, dtype=np.float32), name="identity"))
    y, z = (ir.val(n, ir.DataType.FLOAT) for n in ("y", "z"))
    tape.op("MatMul", [x, identity], output=y)
    flat = tape.op("Flatten", [y], {"axis": 2})
    selected = ir.val("selected", ir.DataType.FLOAT)
    tape.op("Gather", [flat, rows], output=selected)
    tape.op("MatMul", [selected, identity], output=z)
    built = ir.Graph(
        [x, rows],
        [y, z],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 21},
        name="g",
    )
    places = {"linear.first": "x y 3", "linear.last": "selected z 2", "another": "entry"}
    model = ir.Model(built, ir_version=10, metadata_props=places)
    return ir.to_proto(model).SerializeToString()


def run(adapters: list[dict[str, Pair]], weights: list[list[float]]) -> list[np.ndarray]:
    """y and z; `weights` has a row of the adapters' weights for each token."""
    model, options = parse_model(graph()), ort.SessionOptions()
    LowRank(adapters).add_to(model, options)
    session = session_of(model.SerializeToString(), options)
    feeds = {"x": X, "logit_rows": np.array([1]), ADAPTER_WEIGHTS: np.array([weights], np.float32)}
    return session.run(None, feeds)


def pair(down: list[list[float]], up: list[list[float]]) -> Pair:
    return np.array(down, np.float32), np.array(up, np.float32)


SUM_TO_FIRST = pair([[1], [1]], [[10, 0]])  # rank 1: adds 10 (a + b) to the first channel
SWAP = pair([[1, 0], [0, 1]], [[0, 1], [1, 0]])  # rank 2: adds (b, a)


def test_each_token_has_the_change_of_its_adapter() -> None:
    y, z = run([{"first": SUM_TO_FIRST}, {"first": SWAP}], [[1, 0], [0, 1]])
    assert y.tolist() == [[[1 + 30, 2], [3 + 4, 4 + 3]]]
    assert z.tolist() == [[7, 7]]


def test_weights_scale_and_add_up() -> None:
    y, _ = run([{"first": SUM_TO_FIRST}, {"first": SWAP}], [[0, 0], [0.5, -1]])
    assert y.tolist() == [[[1, 2], [3 + 35 - 4, 4 - 3]]]


def test_adapters_may_change_different_layers() -> None:
    y, z = run([{"first": SUM_TO_FIRST}, {"last": SWAP}], [[1, 1], [1, 1]])
    assert y.tolist() == [[[31, 2], [73, 4]]]
    assert z.tolist() == [[73 + 4, 4 + 73]]


def test_the_last_block_takes_the_weights_of_the_selected_rows() -> None:
    _, z = run([{"last": SWAP}], [[5], [1]])
    assert z.tolist() == [[7, 7]]


def test_a_graph_without_the_names_of_its_layers_is_refused() -> None:
    model = parse_model(graph())
    del model.metadata_props[:]
    with pytest.raises(BundleError, match="export the checkpoint again"):
        LowRank([{"first": SWAP}]).add_to(model, ort.SessionOptions())
