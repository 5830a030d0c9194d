"""Adapters with random matrices: as PEFT saves them, and as files for a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from issun.export.canonical import expected_shapes
from issun.export.config import read_config
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.adapter_file import write_adapter
from issun.runtime.weights.low_rank import Pair
from issun.runtime.weights.proto import parse_model


def peft_adapter(
    checkpoint: Path, folder: Path, *, seed: int = 0, rank: int = 4, size: float = 0.1
) -> Path:
    """Write an adapter of all linear layers of a checkpoint's blocks, as PEFT saves it."""
    family, network = read_config(checkpoint)
    rng, tensors = np.random.default_rng(seed), {}
    block = re.compile(re.escape(family.layer).replace(r"\{\}", r"\d+"))
    for name, shape in expected_shapes(family, network).items():
        if len(shape) == 2 and block.match(name):
            width, out = shape if family.stored_in_out else shape[::-1]
            at = f"base_model.model.{family.base}{name.removesuffix('.weight')}"
            tensors[f"{at}.lora_A.weight"] = rng.normal(0, size, (rank, width)).astype(np.float32)
            tensors[f"{at}.lora_B.weight"] = rng.normal(0, size, (out, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"target_modules": "all-linear"}), encoding="utf-8"
    )
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def linear_shapes(bundle: Path) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers that the bundle's graph names."""
    manifest = read_manifest(bundle)
    model = parse_model((bundle / manifest.graphs["float32"]).read_bytes())
    shape = manifest.architecture
    heads = shape.n_head * shape.kv_head_dim
    keys = shape.n_kv_head * shape.kv_head_dim
    sizes = {
        "qkv": (shape.n_embd, heads + 2 * keys),
        "out": (heads, shape.n_embd),
        "gate": (shape.n_embd, shape.n_inner),
        "up": (shape.n_embd, shape.n_inner),
        "down": (shape.n_inner, shape.n_embd),
    }
    names = [entry.key.removeprefix("linear.") for entry in model.metadata_props]
    return {name: sizes[name.rpartition(".")[2]] for name in names}


def random_adapter(
    bundle: Path,
    target: Path,
    *,
    seed: int = 0,
    rank: int = 4,
    size: float = 0.1,
    parts: Sequence[str] = ("qkv", "out", "gate", "up", "down"),
) -> Path:
    """Write an adapter of the bundle with normally distributed matrices."""
    rng = np.random.default_rng(seed)
    matrices: dict[str, Pair] = {}
    for name, (width, out) in linear_shapes(bundle).items():
        if name.rpartition(".")[2] in parts:
            down, up = rng.normal(0, size, (width, rank)), rng.normal(0, size, (rank, out))
            matrices[name] = (down.astype(np.float32), up.astype(np.float32))
    manifest = read_manifest(bundle)
    write_adapter(
        target, matrices, bundle=manifest.bundle_id, source="random", source_sha256="", scale=1.0
    )
    return target
