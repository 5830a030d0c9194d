"""`issun adapter`: which adapters fit which bundles, and the file that is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from issun.export import CheckpointError, TargetError
from issun.export.bundle_adapter import make_adapter
from issun.export.smoothing_file import read_smoothing
from issun.runtime import BundleError
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.adapter_file import AdapterFile
from tests.adapters import peft_adapter

NAME = "unscaled"


@pytest.fixture
def adapter(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return peft_adapter(checkpoint(NAME), tmp_path / "lora")


@pytest.fixture
def refusal(bundle: Callable[..., Path], adapter: Path, tmp_path: Path) -> Callable[..., str]:
    """`refusal(tensors, **config)`: why an adapter with more tensors is refused."""

    def refuse(tensors: dict[str, Any], **config: Any) -> str:
        path = adapter / "adapter_model.safetensors"
        save_file(load_file(path) | tensors, path)
        written = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        (adapter / "adapter_config.json").write_text(json.dumps(written | config), "utf-8")
        with pytest.raises(CheckpointError) as caught:
            make_adapter(bundle(NAME), adapter, tmp_path / "a1")
        assert not (tmp_path / "a1").exists()
        return str(caught.value)

    return refuse


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_matrices_are_those_of_peft_scaled_as_the_bundle_is_smoothed(
    bundle: Callable[..., Path], adapter: Path, tmp_path: Path, precision: str
) -> None:
    folder = bundle(NAME, precision)
    header = make_adapter(folder, adapter, tmp_path / "a1")
    found = AdapterFile(tmp_path / "a1")
    assert found.header == header
    assert header.bundle == read_manifest(folder).bundle_id
    assert (header.source, header.rank, header.scale) == ("lora", 4, 2.0)
    stored = load_file(adapter / "adapter_model.safetensors")
    at = "base_model.model.transformer.h.1.mlp.c_fc"
    down, up = found.read()["h.1.up"]
    factors = read_smoothing(folder).factors
    factor = factors[1].inputs["up"] if factors else 1
    assert bool(factors) == (precision == "int8")
    np.testing.assert_allclose(down.T, stored[f"{at}.lora_A.weight"] * factor, rtol=1e-6)
    np.testing.assert_array_equal(up.T, stored[f"{at}.lora_B.weight"] * 2)


def test_the_file_can_be_read_as_the_bundle_can(
    bundle: Callable[..., Path], adapter: Path, tmp_path: Path
) -> None:
    make_adapter(bundle(NAME), adapter, tmp_path / "a1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a1", "lora"]
    if os.name == "posix":
        assert (tmp_path / "a1").stat().st_mode & 0o777 == 0o644


def test_an_existing_file_is_kept(
    bundle: Callable[..., Path], adapter: Path, tmp_path: Path
) -> None:
    (tmp_path / "a1").write_text("mine")
    with pytest.raises(TargetError, match="a1 exists: choose another name"):
        make_adapter(bundle(NAME), adapter, tmp_path / "a1")
    assert (tmp_path / "a1").read_text() == "mine"


def test_a_target_without_a_folder_is_refused_before_any_work(
    bundle: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(TargetError, match="its folder does not exist: name a file"):
        make_adapter(bundle(NAME), tmp_path / "no adapter", tmp_path / "missing" / "a1")


def test_a_bundle_that_keeps_no_factors_is_refused(
    bundle: Callable[..., Path], adapter: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundle(NAME), tmp_path / "bundle")
    manifest = json.loads((folder / "issun.json").read_text(encoding="utf-8"))
    del manifest["files"]["smoothing.safetensors"]
    (folder / "issun.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "smoothing.safetensors").unlink()
    with pytest.raises(CheckpointError, match="export the checkpoint again"):
        make_adapter(folder, adapter, tmp_path / "a1")
    with pytest.raises(BundleError, match="is not a bundle"):
        make_adapter(adapter, adapter, tmp_path / "a1")


def test_an_adapter_that_changes_nothing_is_refused(
    adapter: Path, refusal: Callable[..., str]
) -> None:
    stored = load_file(adapter / "adapter_model.safetensors")
    zeros = {name: np.zeros_like(b) for name, b in stored.items() if "lora_B" in name}
    assert refusal(zeros) == (
        "lora changes nothing: every update of the adapter is zero, as before training."
    )


def test_replaced_tensors_need_a_merge(refusal: Callable[..., str]) -> None:
    head = np.zeros((512, 112), np.float32)
    reason = refusal({"base_model.model.lm_head.weight": head}, modules_to_save=["lm_head"])
    assert reason == (
        "lora also changes lm_head.weight, which only a merged model can have: export its base "
        "with --adapter lora."
    )


def test_an_update_of_the_embedding_needs_a_merge(refusal: Callable[..., str]) -> None:
    at = "base_model.model.transformer.wte.lora_embedding_"
    update = {f"{at}A": np.ones((4, 512), np.float32), f"{at}B": np.ones((112, 4), np.float32)}
    targets = ["wte", "c_attn", "c_proj", "c_fc"]
    assert "also changes embed, which only" in refusal(update, target_modules=targets)
