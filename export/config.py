"""Reads a GPT-2 checkpoint's config.json and checks every field that changes the arithmetic."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from issun.export.errors import CheckpointError
from issun.runtime.files import as_utf8, open_regular, read_bounded, reason_of
from issun.runtime.manifest import Architecture

# Activation in transformers -> ONNX operator: the exact GELU, or its tanh approximation.
ACTIVATIONS = {
    "gelu": "Gelu",
    "gelu_fast": "FastGelu",
    "gelu_new": "FastGelu",
    "gelu_pytorch_tanh": "FastGelu",
}
ACTIVATION_FLOOR = 0.1701  # no activation returns less than -ACTIVATION_FLOOR

# GPT2Model is stored without its tied head; GPT2DoubleHeadsModel has a second head.
_WITH_LM_HEAD = {"GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model"}

_MAX_BYTES = 256 << 20  # of any file of JSON
_MAX_LAYERS, _MAX_SIZE = 10_000, 10**7  # so that a damaged config does not exhaust memory


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """The hyperparameters of a GPT-2 network, named as in config.json."""

    n_layer: int
    n_embd: int
    n_head: int
    n_inner: int
    n_positions: int
    vocab_size: int
    activation_function: str
    layer_norm_epsilon: float
    tie_word_embeddings: bool
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def kv_head_dim(self) -> int:
        """Width of one head in the graph: GroupQueryAttention needs a multiple of 8."""
        return -(-self.head_dim // 8) * 8

    def attention_scale(self, layer: int) -> float:
        """The factor by which the attention scores of `layer` are multiplied."""
        scale = 1 / math.sqrt(self.head_dim) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def architecture(self, *, padded: bool = True) -> Architecture:
        """The manifest's `architecture`; heads have their padded width if `padded`."""
        return Architecture(
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            n_head=self.n_head,
            n_inner=self.n_inner,
            n_positions=self.n_positions,
            vocab_size=self.vocab_size,
            kv_head_dim=self.kv_head_dim if padded else self.head_dim,
            activation_function=self.activation_function,
            layer_norm_epsilon=self.layer_norm_epsilon,
            tie_word_embeddings=self.tie_word_embeddings,
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError if the file contains anything else."""
    try:
        with open_regular(path) as file:
            content = json.loads(as_utf8(read_bounded(file, _MAX_BYTES)).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError("{path} is not a JSON object.", path=path)
    return content


def read_config(folder: Path) -> GPT2Config:
    """Read config.json in `folder`; raises CheckpointError for models that issun cannot export."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError("{folder} is not a checkpoint: it has no config.json.", folder=folder)
    return parse_config(read_json(path), path)


def parse_config(raw: dict[str, Any], path: Path) -> GPT2Config:
    """Check the fields of a config.json; `path` is used in error messages only."""
    _check_architecture(raw, path)
    n_embd = _whole(raw, "n_embd", path)
    n_inner = raw.get("n_inner")
    epsilon = raw.get("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise CheckpointError(
            "{path}: layer_norm_epsilon is {value!r}, it must be a number between 0 and 1.",
            path=path,
            value=epsilon,
        )
    config = GPT2Config(
        n_layer=_whole(raw, "n_layer", path),
        n_embd=n_embd,
        n_head=_whole(raw, "n_head", path),
        n_inner=4 * n_embd if n_inner is None else _whole(raw, "n_inner", path),
        n_positions=_whole(raw, "n_positions", path),
        vocab_size=_whole(raw, "vocab_size", path),
        activation_function=str(raw.get("activation_function", "gelu_new")),
        layer_norm_epsilon=epsilon,
        tie_word_embeddings=_flag(raw, "tie_word_embeddings", path, default=True),
        scale_attn_weights=_flag(raw, "scale_attn_weights", path, default=True),
        scale_attn_by_inverse_layer_idx=_flag(
            raw, "scale_attn_by_inverse_layer_idx", path, default=False
        ),
    )
    if config.n_embd % config.n_head:
        raise CheckpointError(
            "{path}: n_embd {width} is not a multiple of n_head {heads}.",
            path=path,
            width=config.n_embd,
            heads=config.n_head,
        )
    if config.activation_function not in ACTIVATIONS:
        raise CheckpointError(
            "{path}: the activation function {name!r} is not supported; supported: {known}.",
            path=path,
            name=config.activation_function,
            known=", ".join(ACTIVATIONS),
        )
    return config


def _check_architecture(raw: dict[str, Any], path: Path) -> None:
    architectures = raw.get("architectures") or ["GPT2LMHeadModel"]
    if not isinstance(architectures, list):
        architectures = [architectures]
    # FSDP prefixes the name of a class that it wraps.
    names = {str(name).removeprefix("FSDP") for name in architectures}
    if raw.get("model_type") != "gpt2" or not names & _WITH_LM_HEAD:
        raise CheckpointError(
            "{path}: the architecture is {found}; issun supports gpt2 (GPT2LMHeadModel).",
            path=path,
            found=f"{raw.get('model_type')} ({', '.join(map(str, architectures))})",
        )
    if _flag(raw, "add_cross_attention", path, default=False):
        raise CheckpointError(
            "{path}: add_cross_attention is set, which issun does not support.", path=path
        )


def _whole(raw: dict[str, Any], key: str, path: Path) -> int:
    value = raw.get(key)
    limit = _MAX_LAYERS if key == "n_layer" else _MAX_SIZE
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise CheckpointError(
            "{path}: {key} is {value!r}, it must be an integer from 1 to {limit:,}.",
            path=path,
            key=key,
            value=value,
            limit=limit,
        )
    return value


def _flag(raw: dict[str, Any], key: str, path: Path, *, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise CheckpointError(
            "{path}: {key} is {value!r}, it must be true or false.",
            path=path,
            key=key,
            value=value,
        )
    return value
