"""Weight files: formats, shards, and damaged files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from issun.export import CheckpointError, MissingExtraError
from issun.export.weights import SafetensorsFile, open_weights
from tests.checkpoints import save_weights

WEIGHTS = {
    "a": np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32),
    "b": np.array([1.5, -2.0], np.float32),
    "c": np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32),
}
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_formats_and_shards(tmp_path: Path, storage: str, shards: int) -> None:
    save_weights(tmp_path, WEIGHTS, storage=storage, shards=shards)  # type: ignore[arg-type]
    tensors, files = open_weights(tmp_path)
    assert sorted(tensors) == ["a", "b", "c"]
    assert len(files) == shards
    dtype = ml_dtypes.bfloat16 if storage == "bfloat16" else storage
    for name, array in WEIGHTS.items():
        tensor = tensors[name]
        assert tensor.shape == array.shape
        assert tensor.dtype == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[storage]
        read = tensor.read()
        assert read.dtype == np.float32
        assert np.array_equal(read, array.astype(dtype).astype(np.float32))


def test_some_rows_can_be_read(tmp_path: Path) -> None:
    save_weights(tmp_path, WEIGHTS, storage="float16")
    tensor = open_weights(tmp_path)[0]["a"]
    expected = WEIGHTS["a"].astype(np.float16).astype(np.float32)
    for start, stop in ((0, 1), (1, 4), (4, 5), (3, 99), (2, None)):
        assert np.array_equal(tensor.read(start, stop), expected[start:stop])


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no weights: expected model\.safetensors, "):
        open_weights(tmp_path)


def test_safetensors_and_single_files_take_precedence(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    save_weights(tmp_path, WEIGHTS, shards=2)
    assert len(open_weights(tmp_path)[1]) == 2
    save_weights(tmp_path, {"a": WEIGHTS["a"]})
    assert [path.name for path in open_weights(tmp_path)[1]] == ["model.safetensors"]


@pytest.mark.parametrize("cut", [0, 4, 8, 40, -1])
def test_a_truncated_file(tmp_path: Path, cut: int) -> None:
    save_weights(tmp_path, WEIGHTS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        CheckpointError, match="is damaged or was not downloaded completely"
    ) as caught:
        open_weights(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xff", b"1"])
def test_a_damaged_header(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="is damaged"):
        open_weights(tmp_path)


def test_a_header_that_points_outside_the_file(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert np.array_equal(open_weights(tmp_path)[0]["a"].read(), np.zeros(4))
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(CheckpointError, match="is damaged"):
        open_weights(tmp_path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    save_weights(tmp_path, WEIGHTS)
    path = tmp_path / "model.safetensors"
    tensors = SafetensorsFile(path).tensors
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="was truncated"):
        for tensor in tensors.values():
            tensor.read()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_weights(tmp_path, WEIGHTS, shards=3)
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        open_weights(tmp_path)
    assert (
        "lacks model-00001-of-00003.safetensors, model-00003-of-00003.safetensors, which "
        f"{INDEX} lists" in str(caught.value)
    )


@pytest.mark.parametrize("name", ["../out.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_that_names_a_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file(WEIGHTS, tmp_path / "out.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError) as caught:
        open_weights(folder)
    assert f"lists {name!r}, which is not in its folder" in str(caught.value)


@pytest.mark.parametrize(
    "content", ["{}", '{"weight_map": {}}', '{"weight_map": ["a"]}', "[]", "{"]
)
def test_a_damaged_index(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=INDEX.replace(".", r"\.")):
        open_weights(tmp_path)


def test_pickled_weights_need_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(MissingExtraError, match="needs torch"):
        open_weights(tmp_path)
