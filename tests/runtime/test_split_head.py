"""The 8-bit head as integer products: the logits of MatMulNBits, up to the rounding of sums."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from issun.runtime import opening
from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import Architecture, read_manifest
from issun.runtime.weights import session, weight_cache
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.session import open_session
from issun.runtime.weights.split_head import split_head
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime import packed
from tests.runtime.packed import IDS

NAMES = ["embedded", "head-20-width-100", "head-40-untied", "vocab-8011"]


def logits(graph: Path, architecture: Architecture) -> NDArray[np.float32]:
    """The logits of several rows together, and of one row after them."""
    decoder = IssunDecoder(open_session(graph, threads=1), architecture)
    cache = decoder.new_cache()
    several = np.concatenate(list(decoder.score(cache, IDS)))
    return np.concatenate([several, decoder.step(cache, 9)[None]])


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_matmulnbits(
    bundle: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(EMBEDDED if name == "embedded" else bundle(name), folder)
    architecture = read_manifest(folder).architecture
    model = parse_model((folder / "model.onnx").read_bytes())
    assert split_head(model.graph)
    (folder / "split.onnx").write_bytes(model.SerializeToString())
    graph = onnx.load(folder / "split.onnx", load_external_data=False).graph
    assert "MatMulNBits" not in {node.op_type for node in graph.node}
    before = logits(folder / "model.onnx", architecture)
    after = logits(folder / "split.onnx", architecture)
    assert np.abs(after - before).max() <= 2e-5 * np.abs(before).max()


@pytest.fixture
def without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this CPU has no integer kernel for MatMulNBits."""
    for module in (session, weight_cache, opening):
        monkeypatch.setattr(module, "rounds_activations", lambda: False)


@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize("name", ["head-20-width-100", "vocab-8011"])
def test_a_cpu_without_the_kernel_loads_a_split_head(
    bundle: Callable[..., Path],
    cache: WeightCache,
    request: pytest.FixtureRequest,
    name: str,
    precision: str,
) -> None:
    folder = bundle(name, precision)
    before = packed.logits(folder)
    request.getfixturevalue("without_kernel")
    notes: packed.Notes = []
    plain = packed.exact(folder)
    assert np.abs(plain - before).max() <= 2e-5 * np.abs(before).max()
    assert precision == "float32" or not np.array_equal(plain, before)
    for _ in range(2):
        assert np.array_equal(packed.logits(folder, notes), plain)
    assert [note[:7] for note in notes].count("Packing") == 1
    assert len(cache.entries()) == 2  # one for each kind of CPU


@pytest.mark.usefixtures("without_kernel")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_int8_is_recommended_without_the_kernel(
    bundle: Callable[..., Path], precision: str
) -> None:
    notes: packed.Notes = []
    packed.load(bundle("head-8", precision), notes, keep_packed=False).close()
    said = "This CPU has no fast kernels for 4-bit weights: an int8 bundle answers faster here."
    assert notes == [said] * (precision == "int4")


def test_only_an_8_bit_head_is_replaced(bundle: Callable[..., Path]) -> None:
    content = (bundle("head-8", "float32") / "model.onnx").read_bytes()
    model = parse_model(content)
    assert not split_head(model.graph)
    assert model == parse_model(content)
