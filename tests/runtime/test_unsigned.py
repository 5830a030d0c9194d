"""int8 weights for CPUs without VNNI: converted once to unsigned bytes, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from issun.runtime.weights import packing, session, weight_cache
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.unsigned import read_unsigned, signed_weights, to_unsigned
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime.packed import Notes, logits


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this CPU's sums of signed bytes saturate."""
    for module in (session, packing, weight_cache):
        monkeypatch.setattr(module, "integer_matmul_saturates", lambda: True)


@pytest.mark.parametrize("name", ["head-20-width-100", "head-40-untied", "vocab-8011"])
def test_logits_are_those_of_signed_bytes(
    bundle: Callable[..., Path],
    cache: WeightCache,
    request: pytest.FixtureRequest,
    name: str,
) -> None:
    folder = bundle(name)
    signed = logits(folder, keep_packed=False)  # of this CPU without the pretence
    request.getfixturevalue("saturating")
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), signed)
    assert [note[:19] for note in notes] == ["Packing the weights"]
    assert np.array_equal(logits(folder), signed)
    assert np.array_equal(logits(folder, keep_packed=False), signed)
    assert cache.entries()[0].packed.unsigned


@pytest.mark.usefixtures("saturating")
def test_every_signed_weight_is_stored_plus_128(folder: Path, cache: WeightCache) -> None:
    logits(folder)
    (entry,) = cache.entries()
    kept = (cache.folder / entry.key / "packed.data").read_bytes()
    graph = onnx.load(folder / "model.onnx").graph
    weights = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    assert set(entry.packed.unsigned) == set(weights)
    assert len(weights) >= 3
    for name, offset in entry.packed.unsigned.items():
        values = onnx.numpy_helper.to_array(weights[name]).astype(np.int16) + 128
        found = np.frombuffer(kept, np.uint8, values.size, offset)
        assert np.array_equal(found, values.ravel())


def test_the_graph_reads_unsigned_bytes_with_a_zero_of_128(folder: Path) -> None:
    model = parse_model((folder / "model.onnx").read_bytes())
    names = {tensor.name for tensor in signed_weights(model.graph)}
    read_unsigned(model.graph)
    assert signed_weights(model.graph) == []
    graph = onnx.load_model_from_string(model.SerializeToString(), "protobuf").graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    assert {tensors[name].data_type for name in names} == {onnx.TensorProto.UINT8}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert {node.input[1] for node in products} == names
    for node in products:
        assert onnx.numpy_helper.to_array(tensors[node.input[5]]) == np.uint8(128)


@pytest.mark.usefixtures("saturating")
def test_a_float32_graph_stays_as_it_is(bundle: Callable[..., Path], cache: WeightCache) -> None:
    logits(bundle("head-8", "float32"))
    packed = cache.entries()[0].packed
    assert (packed.unsigned, packed.carrier_offset) == ({}, 0)


@pytest.mark.usefixtures("saturating")
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_damaged_byte_is_detected(folder: Path, cache: WeightCache, place: str) -> None:
    expected = logits(folder)
    (entry,) = cache.entries()
    data = cache.folder / entry.key / "packed.data"
    offsets = sorted(entry.packed.unsigned.values())
    content = bytearray(data.read_bytes())
    content[offsets[0] if place == "first" else offsets[-1] + 99] ^= 1
    data.chmod(0o600)
    data.write_bytes(content)
    assert list(cache.damaged()) == [entry]
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), expected)
    assert notes == [f"Removed damaged packed weights from {cache.folder}."]
    assert np.array_equal(logits(folder), expected)


def test_conversion_flips_the_highest_bit() -> None:
    assert to_unsigned(bytes([0, 1, 127, 128, 255])) == bytes([128, 129, 255, 0, 127])
