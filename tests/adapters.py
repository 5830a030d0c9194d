"""Adapter files with random matrices, written without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from issun.runtime.manifest import read_manifest
from issun.runtime.weights.adapter_file import write_adapter
from issun.runtime.weights.low_rank import Pair
from issun.runtime.weights.proto import parse_model


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
