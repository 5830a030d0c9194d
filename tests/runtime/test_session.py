"""Graphs that ONNX Runtime must refuse, session options, and what the package imports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from issun.export.probes import COLUMNS, DEPTH, ROWS, rounding_graph, saturation_graph
from issun.runtime import BundleError, ParameterError
from issun.runtime.weights import session
from issun.runtime.weights.session import (
    integer_matmul_saturates,
    open_session,
    rounds_activations,
)


@pytest.fixture
def folder(bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return shutil.copytree(bundle("head-8", "float32"), tmp_path / "bundle")


def move_data(folder: Path, location: str) -> None:
    """Let the graph look for its data elsewhere."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    moved = 0
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
                moved += 1
    assert moved
    onnx.save(model, folder / "model.onnx")


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_session(folder / "model.onnx", threads=1)
    message = str(caught.value)
    assert message.startswith(f"ONNX Runtime cannot open {folder / 'model.onnx'}: ")
    assert "\n" not in message
    return message


def test_a_sound_graph(folder: Path) -> None:
    inputs = {i.name for i in open_session(folder / "model.onnx", threads=1).get_inputs()}
    assert {"input_ids", "logit_rows", "past_key_values.2.value"} <= inputs


@pytest.mark.parametrize("where", ["../outside.data", "absolute"])
def test_data_outside_the_folder_is_refused(folder: Path, where: str) -> None:
    outside = folder.parent / "outside.data"
    shutil.copy(folder / "model.onnx.data", outside)
    move_data(folder, str(outside) if where == "absolute" else where)
    refusal(folder)


def test_data_inside_the_folder_under_another_name_is_accepted(folder: Path) -> None:
    # Shows that the test above fails only because of the location.
    shutil.move(folder / "model.onnx.data", folder / "inside.data")
    move_data(folder, "inside.data")
    open_session(folder / "model.onnx", threads=1)


def test_truncated_data_is_refused(folder: Path) -> None:
    path = folder / "model.onnx.data"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    refusal(folder)


def test_missing_data_is_refused(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    refusal(folder)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a\xff\xff"])
def test_a_damaged_graph_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    refusal(folder)


def test_a_missing_graph_is_refused(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    refusal(folder)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_threads_have_a_range(folder: Path, threads: int) -> None:
    with pytest.raises(ParameterError, match=rf"threads is {threads}, .* from 1 to 1024"):
        open_session(folder / "model.onnx", threads=threads)


@pytest.mark.parametrize("make", [saturation_graph, rounding_graph])
def test_the_committed_graphs_are_the_generated_ones(make: Callable[[], ir.Model]) -> None:
    graph = make()
    committed = Path(session.__file__).with_name(f"{graph.graph.name}.onnx").read_bytes()
    assert committed == ir.to_proto(graph).SerializeToString()


@pytest.mark.parametrize("saturates", [True, False])
def test_saturation_is_detected_from_the_sums(
    monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    class Kernel:
        """Multiplies exactly, or adds pairs of products in 16 bits like AVX2."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get_inputs(self) -> list[ir.Value]:
            return list(saturation_graph().graph.inputs)

        def run(self, _: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            products = feeds["values"].astype(np.int32)[:, :, None] * np.full((DEPTH, COLUMNS), 127)
            pairs = products.reshape(ROWS, DEPTH // 2, 2, COLUMNS).sum(axis=2)
            if saturates:
                pairs = np.clip(pairs, -(2**15), 2**15 - 1)
            return [pairs.sum(axis=1)]

    monkeypatch.setattr(session.ort, "InferenceSession", Kernel)
    integer_matmul_saturates.cache_clear()
    try:
        assert integer_matmul_saturates() is saturates
    finally:
        integer_matmul_saturates.cache_clear()


@pytest.mark.parametrize("rounds", [True, False])
def test_a_missing_kernel_is_detected_from_small_values(
    monkeypatch: pytest.MonkeyPatch, rounds: bool
) -> None:
    class Kernel:
        """Multiplies by ones, with or without rounding values to 127 steps."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def get_inputs(self) -> list[ir.Value]:
            return list(rounding_graph().graph.inputs)

        def run(self, _: object, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            values = feeds["values"]
            if rounds:
                values = np.rint(values * 127) / 127
            return [np.repeat(values.sum(1, keepdims=True), COLUMNS, 1)]

    monkeypatch.setattr(session.ort, "InferenceSession", Kernel)
    rounds_activations.cache_clear()
    try:
        assert rounds_activations() is rounds
    finally:
        rounds_activations.cache_clear()


def test_loading_and_answering_import_nothing_heavy(folder: Path) -> None:
    code = """
import json, sys
from issun.runtime import Conversation, Model, SamplingParams
model = Model.load(sys.argv[1], threads=1)
Conversation(model).reply("山は?", SamplingParams(max_new_tokens=2))
print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, check=True, text=True
    )
    imported = set(json.loads(done.stdout))
    heavy = {
        *("torch", "transformers", "optimum", "onnx", "onnx_ir", "matplotlib", "rich", "typer"),
        *("safetensors", "huggingface_hub", "prompt_toolkit", "ml_dtypes"),
        *("tokenizers", "jinja2", "subprocess"),  # for other tokenizers and for chat templates
    }
    assert imported & heavy == set()
    assert {"onnxruntime", "sentencepiece", "numpy"} <= imported
    # issun.runtime imports no other part of issun.
    code = "import sys, issun.runtime; print(*(m for m in sys.modules if m.startswith('issun.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert all(name.startswith("issun.runtime") for name in done.stdout.split())


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
def test_add_and_layer_normalization_are_not_fused(
    bundle: Callable[..., Path], tmp_path: Path, precision: str
) -> None:
    """ONNX Runtime 1.32 does not fuse them in this graph anyway; another version may."""
    options = session.make_options(1)
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    session.create_session(bundle("head-8", precision) / "model.onnx", options)
    run = onnx.load(tmp_path / "run.onnx", load_external_data=False)
    operators = {node.op_type for node in run.graph.node}
    assert {"Add", "LayerNormalization"} <= operators
    assert not any("SkipLayerNormalization" in name for name in operators)


def test_as_many_threads_as_fast_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "physical_cores", lambda: 3)
    assert session.make_options().intra_op_num_threads == 3
    assert session.make_options(2).intra_op_num_threads == 2


IDLE = """
import time
from issun.runtime import Model
with Model.load(threads=2) as model:
    model.generate("日本")
    time.sleep(0.5)
    before = time.process_time()
    time.sleep(2)
    print(time.process_time() - before)
"""


def test_idle_threads_use_no_cpu() -> None:
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.01 * 2
