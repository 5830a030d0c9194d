"""The factors that a bundle keeps convert low-rank updates as smoothing changes the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export import CheckpointError, ExportOptions, export
from issun.export.checkpoint import AdapterFolder, open_checkpoint
from issun.export.low_rank import canonical_low_rank
from issun.export.network import Network
from issun.export.smoothing import Factors, smoothed
from issun.export.smoothing_file import read_smoothing, write_smoothing
from issun.runtime.manifest import SMOOTHING_NAME, read_manifest

RANK = 3


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def random_factors(network: Network, seed: int) -> Factors:
    sizes = (network.n_embd, network.n_kv_head * network.kv_head_dim, network.n_embd)
    arrays = [np.exp(drawn(size, seed=seed + i)) for i, size in enumerate(sizes)]
    down = np.exp(drawn(network.n_inner, seed=seed + 3)) if network.gated else None
    return Factors(network, *arrays, down)


def all_linear_adapter(folder: Path, source: Path) -> AdapterFolder:
    """An adapter with random values for every linear layer of a checkpoint."""
    folder.mkdir()
    opened, tensors = open_checkpoint(source), {}
    family = opened.family
    for number, (name, tensor) in enumerate(sorted(opened.stored.items())):
        if len(tensor.shape) != 2 or name.split(".")[0] in (*family.top.values(), family.head):
            continue
        width, out = tensor.shape if family.stored_in_out else tensor.shape[::-1]
        module = f"base_model.model.{family.base}{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = drawn(RANK, width, seed=number)
        tensors[f"{module}.lora_B.weight"] = drawn(out, RANK, seed=number + 500)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 6, "target_modules": "all-linear"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return AdapterFolder(folder, folder.name)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_converted_updates_are_those_of_the_smoothed_weights(family: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_checkpoint(source, SHAPES[family]["tiny"])
    plain = open_checkpoint(source)
    adapter = all_linear_adapter(tmp_path / "lora", source)
    merged = open_checkpoint(source, adapters=[adapter])
    factors = {0: random_factors(plain.network, 7)}  # the other layers are not smoothed
    write_smoothing(tmp_path, source / "config.json", factors)
    read = read_smoothing(tmp_path)
    assert read.network == plain.network
    pairs = merged.merged[0].adapter.pairs
    updates = read.apply(canonical_low_rank(pairs, read.family, read.network))
    linears = ["qkv", "out", "up", "down"] + ["gate"] * plain.network.gated
    assert updates.keys() == {
        f"h.{layer}.{part}" for layer in range(plain.network.n_layer) for part in linears
    }
    before, after = (it.tensors | smoothed(it.tensors, 0, factors[0]) for it in (plain, merged))
    for base, update in updates.items():
        added = after[f"{base}.weight"].read() - before[f"{base}.weight"].read()
        np.testing.assert_allclose((update.b @ update.a).T, added, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_bundle_keeps_its_factors(
    checkpoint: Callable[[str], Path], tmp_path: Path, precision: str
) -> None:
    options = ExportOptions(precision=precision)  # type: ignore[arg-type]
    export(checkpoint("head-17"), tmp_path / "b", options)
    assert SMOOTHING_NAME in read_manifest(tmp_path / "b").files
    found = read_smoothing(tmp_path / "b")
    assert found.network == open_checkpoint(checkpoint("head-17")).network
    assert sorted(found.factors) == ([] if precision == "float32" else [0, 1])
    for factors in found.factors.values():
        assert factors.attention.shape == (119,)
        assert factors.down is None


def test_whoever_reads_the_weights_reads_the_factors(ja_small: Callable[..., Path]) -> None:
    bundle = ja_small("int8")
    modes = {path.stat().st_mode for path in bundle.iterdir()}
    assert len(modes) == 1


def test_bundles_without_factors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no smoothing.safetensors, .* export the check"):
        read_smoothing(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "config", "names"])
def test_damaged_files_are_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, damage: str
) -> None:
    network = open_checkpoint(checkpoint("head-17")).network
    config = checkpoint("head-17") / "config.json"
    write_smoothing(tmp_path, config, {0: random_factors(network, 1)})
    path = tmp_path / SMOOTHING_NAME
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "config":
        save_file(load_file(path), path)
    else:
        text = {"config": config.read_text(encoding="utf-8")}
        save_file({"h.0.other": drawn(3)}, path, metadata=text)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_smoothing(tmp_path)
