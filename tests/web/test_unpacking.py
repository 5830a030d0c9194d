"""Linear layers in blocks, unpacked to int8 products for a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from issun.export.quantize import dequantize_blocks, quantize_blocks
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.session import adapt_to_cpu, make_options
from issun.web import write_site
from issun.web.unpacking import GROUP, UnpackedWeights
from tests.conftest import Bundles

OUT = 24
NP_TYPES = {np.dtype("f4"): onnx.TensorProto.FLOAT, np.dtype("u1"): onnx.TensorProto.UINT8}


def model_with(folder: Path, arrays: dict[str, NDArray[Any]], **attributes: int) -> bytes:
    """A graph y = MatMulNBits(x, w, s[, bias]) whose tensors are in model.data."""
    graph = onnx.GraphProto(name="linear")
    with (folder / "model.data").open("wb") as data:
        for name, array in arrays.items():
            tensor = graph.initializer.add(
                name=name, data_type=NP_TYPES[array.dtype], dims=array.shape
            )
            tensor.data_location = onnx.TensorProto.EXTERNAL
            offset = data.tell()
            data.write(array.tobytes())
            place = {"location": "model.data", "offset": offset, "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
    inputs = ["x", "w", "s", *(["", "", "bias"] if "bias" in arrays else [])]
    node = onnx.helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", **attributes)
    graph.node.add().CopyFrom(node)
    graph.input.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None))
    graph.output.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def unpacked(content: bytes, folder: Path) -> Path:
    """The path of the unpacked graph, beside its data file."""
    model = parse_model(content)
    weights = UnpackedWeights(model.graph, folder / "model.data", "web.data")
    (folder / "web.data").write_bytes(b"".join(weights.chunks()))
    assert (folder / "web.data").stat().st_size == weights.size
    path = folder / "web.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("bits", "block"), [(4, 128), (4, 32), (8, 32)])
@pytest.mark.parametrize("width", [96, GROUP, 2 * GROUP + 7])
def test_a_linear_layer(tmp_path: Path, bits: int, block: int, width: int) -> None:
    rng = np.random.default_rng(width)
    weight = rng.normal(size=(OUT, width)).astype(np.float32)
    stored = quantize_blocks(
        lambda start, stop: weight[start:stop], weight.shape, bits=bits, block=block
    )
    arrays = {"w": stored.values, "s": stored.scales, "bias": weight[:, 0].copy()}
    content = model_with(tmp_path, arrays, K=width, N=OUT, bits=bits, block_size=block)
    path, options = unpacked(content, tmp_path), make_options(1)
    # The sums of a browser do not overflow, unlike those of some CPUs.
    adapt_to_cpu(parse_model(path.read_bytes()).graph, options)
    session = ort.InferenceSession(path, options)
    exact = dequantize_blocks(stored, bits=bits, width=width)
    for lead in ((5,), (1, 1), (1, 5)):
        x = rng.normal(size=(*lead, width)).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        expected = x @ exact.T + arrays["bias"]
        assert found.shape == expected.shape
        # Rounding to 127 steps of a peak of about 3.5 sigma, twice.
        assert np.linalg.norm(found - expected) <= 0.016 * np.linalg.norm(expected)


def test_values_by_hand(tmp_path: Path) -> None:
    """Codes 0 to 15 with a scale of 2 are -16 to 14: of these 127 steps of 16 / 127 are int8."""
    codes = np.arange(16, dtype=np.uint8)
    packed = (codes[0::2] | codes[1::2] << 4).reshape(1, 1, 8)
    arrays = {"w": packed, "s": np.full((1, 1), 2, np.float32)}
    content = model_with(tmp_path, arrays, K=16, N=1, bits=4, block_size=16)
    unpacked(content, tmp_path)
    data = (tmp_path / "web.data").read_bytes()
    expected = np.rint((np.arange(16) - 8) * 127 / 8)
    assert np.frombuffer(data[:16], np.int8).tolist() == expected.tolist()
    assert np.frombuffer(data[16:], np.float32)[0] == np.float32(16) / np.float32(127)


def test_the_site_of_an_int4_bundle(bundle: Bundles, runtime: Path, tmp_path: Path) -> None:
    folder = bundle("head-8", "int4")
    site = write_site(folder, tmp_path / "site", runtime=runtime)
    assert site.unpacked
    described = json.loads((tmp_path / "site" / "site.json").read_text(encoding="utf-8"))
    weights = described["weights"]
    assert (weights["path"], described["precision"]) == ("bundle/web.model.onnx.data", "int4")
    assert (tmp_path / "site" / weights["path"]).stat().st_size == weights["size"]
    assert not (tmp_path / "site" / "bundle" / "model.onnx.data").exists()
    graph = onnx.load(tmp_path / "site" / described["graph"], load_external_data=False).graph
    assert "MatMulNBits" not in {node.op_type for node in graph.node}


def test_a_damaged_int4_bundle_is_refused(bundle: Bundles, runtime: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle("head-8", "int4"), folder)
    content = bytearray((folder / "model.onnx.data").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx.data").write_bytes(content)
    assert read_manifest(folder)
    with pytest.raises(Exception, match="differs from the file that was exported"):
        write_site(folder, tmp_path / "site", runtime=runtime)
    assert not (tmp_path / "site").exists()
