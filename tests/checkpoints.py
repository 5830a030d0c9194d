"""Random GPT-2 checkpoints of unusual shapes, made so that a wrong graph gives wrong logits.

Weights have a standard deviation of 0.2 and every bias and LayerNormalization vector is
perturbed by 0.2, so that omitting any of them would be noticed.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from issun.benchmarks.small_tokenizers import SPECIAL

Array = NDArray[np.float32]
Storage = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What can be unusual about a checkpoint, with the names of config.json if it has them."""

    n_embd: int
    n_head: int
    n_layer: int = 2
    n_inner: int | None = None
    n_positions: int = 256
    vocab_size: int = 512
    activation_function: str = "gelu_fast"
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = True
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    storage: Storage = "float32"
    prefix: str = "transformer."
    shards: int = 1
    masks: bool = False  # the mask buffers that old checkpoints store with the weights


SHAPES = {
    "head-8": Shape(n_embd=128, n_head=16, n_layer=3, n_positions=192),
    "head-17": Shape(n_embd=119, n_head=7, activation_function="gelu_new", vocab_size=500),
    "head-20-width-100": Shape(n_embd=100, n_head=5, n_layer=3, n_positions=1030),
    "head-24-gelu": Shape(n_embd=120, n_head=5, activation_function="gelu", prefix=""),
    "head-40-untied": Shape(
        n_embd=120, n_head=3, tie_word_embeddings=False, activation_function="gelu_pytorch_tanh"
    ),
    "vocab-8011": Shape(n_embd=128, n_head=4, n_layer=1, vocab_size=8011, n_positions=200),
    "inner-90": Shape(n_embd=100, n_head=2, n_inner=90, layer_norm_epsilon=1e-3, prefix=""),
    "unscaled": Shape(n_embd=112, n_head=7, scale_attn_weights=False),
    "scaled-by-layer": Shape(
        n_embd=119, n_head=7, n_layer=4, scale_attn_by_inverse_layer_idx=True, masks=True
    ),
    "float16": Shape(n_embd=120, n_head=5, n_inner=256, storage="float16", prefix="", masks=True),
    "bfloat16-sharded": Shape(
        n_embd=104, n_head=13, storage="bfloat16", shards=3, tie_word_embeddings=False
    ),
}


def config_of(shape: Shape) -> dict[str, object]:
    """The config.json of a shape."""
    fields = (
        "n_embd n_head n_layer n_inner n_positions vocab_size activation_function "
        "layer_norm_epsilon tie_word_embeddings scale_attn_weights scale_attn_by_inverse_layer_idx"
    )
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "bos_token_id": 2,
        "eos_token_id": 3,
        **{name: getattr(shape, name) for name in fields.split()},
    }


def make_weights(shape: Shape, seed: int = 0) -> dict[str, Array]:
    """All weights by the names of GPT2LMHeadModel; the same seed gives the same numbers."""
    return {name: _random(name, size, seed) for name, size in _sizes(shape)}


def write_checkpoint(folder: Path, shape: Shape, tokenizer: Path, *, seed: int = 0) -> Path:
    """Write a complete checkpoint of `shape` to the new folder `folder` and return the folder."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape)), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL), encoding="utf-8")
    shutil.copyfile(tokenizer, folder / "spiece.model")
    prefix = shape.prefix
    weights = {
        name.replace("transformer.", prefix): array
        for name, array in make_weights(shape, seed).items()
    }
    if shape.masks:
        for layer in range(shape.n_layer):
            mask = np.tril(np.ones((1, 1, shape.n_positions, shape.n_positions), np.float32))
            weights[f"{prefix}h.{layer}.attn.bias"] = mask
            weights[f"{prefix}h.{layer}.attn.masked_bias"] = np.float32([-1e4])
    save_weights(folder, weights, storage=shape.storage, shards=shape.shards)
    return folder


def save_weights(
    folder: Path, weights: dict[str, Array], *, storage: Storage = "float32", shards: int = 1
) -> None:
    """Write `model.safetensors`, or shards with an index."""
    names = sorted(weights)
    if shards == 1:
        _save(folder / "model.safetensors", weights, storage)
        return
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        _save(folder / file, {name: weights[name] for name in names[i::shards]}, storage)
        places |= dict.fromkeys(names[i::shards], file)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def _save(path: Path, weights: dict[str, Array], storage: Storage) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16 if storage == "bfloat16" else storage)
    stored = {name: np.ascontiguousarray(array.astype(dtype)) for name, array in weights.items()}
    save_file(stored, path, metadata={"format": "pt"})


def _sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = shape.n_embd
    inner = shape.n_inner or 4 * width
    yield "transformer.wte.weight", (shape.vocab_size, width)
    yield "transformer.wpe.weight", (shape.n_positions, width)
    for layer in range(shape.n_layer):
        for name, size in (
            ("attn.c_attn", (width, 3 * width)),
            ("attn.c_proj", (width, width)),
            ("mlp.c_fc", (width, inner)),
            ("mlp.c_proj", (inner, width)),
        ):
            yield f"transformer.h.{layer}.{name}.weight", size
            yield f"transformer.h.{layer}.{name}.bias", size[1:]
        for name in ("ln_1", "ln_2"):
            yield f"transformer.h.{layer}.{name}.weight", (width,)
            yield f"transformer.h.{layer}.{name}.bias", (width,)
    yield "transformer.ln_f.weight", (width,)
    yield "transformer.ln_f.bias", (width,)
    if not shape.tie_word_embeddings:
        yield "lm_head.weight", (shape.vocab_size, width)


def _random(name: str, size: tuple[int, ...], seed: int) -> Array:
    # One generator per tensor: adding a tensor changes no other one.
    noise = np.random.RandomState((seed + zlib.crc32(name.encode())) % 2**32).randn(*size) * 0.2
    gain = ".ln_" in name and name.endswith(".weight")
    return (noise + gain).astype(np.float32)
