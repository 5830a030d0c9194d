"""config.json of a GPT-2 checkpoint, with every field that changes arithmetic checked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from issun.export.errors import CheckpointError
from issun.runtime.files import as_utf8, open_regular, read_bounded, reason_of
from issun.runtime.manifest import Architecture

# transformers' name -> the operator of the graph: the exact GELU, or its tanh approximation.
ACTIVATIONS = {
    "gelu": "Gelu",
    "gelu_fast": "FastGelu",
    "gelu_new": "FastGelu",
    "gelu_pytorch_tanh": "FastGelu",
}
ACTIVATION_FLOOR = 0.1701  # none of them gives less than minus this

# The base model has a tied head without holding it, and the double one has a second head beside.
_WITH_LM_HEAD = {"GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model"}

_MOST_BYTES = 256 << 20  # of any file of JSON
_MAX_LAYERS, _MAX_SIZE = 10_000, 10**7  # a damaged config must not ask for absurd amounts


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """The numbers that fix a GPT-2 network, named as in config.json."""

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
        """Width of one head in the graph: GroupQueryAttention wants a multiple of 8."""
        return -(-self.head_dim // 8) * 8

    def attention_scale(self, layer: int) -> float:
        """The factor on the attention scores of `layer`."""
        scale = 1 / math.sqrt(self.head_dim) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def architecture(self, *, padded: bool = True) -> Architecture:
        """These numbers as a manifest has them; heads are as wide as in the graph if `padded`."""
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
    """Read a JSON object; raises CheckpointError when the file holds anything else."""
    try:
        with open_regular(path) as file:
            content = json.loads(as_utf8(read_bounded(file, _MOST_BYTES)).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError("{path} is not a JSON object.", path=path)
    return content


def read_config(folder: Path) -> GPT2Config:
    """Read config.json in `folder`; raises CheckpointError for what issun cannot export exactly."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError("{folder} has no config.json: it is no checkpoint.", folder=folder)
    return parse_config(read_json(path), path)


def parse_config(raw: dict[str, Any], path: Path) -> GPT2Config:
    """Check the fields of a config.json; `path` is only named in errors."""
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
            "{path}: the activation {name!r} is unknown; known are {known}.",
            path=path,
            name=config.activation_function,
            known=", ".join(ACTIVATIONS),
        )
    return config


def _check_architecture(raw: dict[str, Any], path: Path) -> None:
    architectures = raw.get("architectures") or ["GPT2LMHeadModel"]
    if not isinstance(architectures, list):
        architectures = [architectures]
    # FSDP puts its name in front of a class that it has wrapped.
    names = {str(name).removeprefix("FSDP") for name in architectures}
    if raw.get("model_type") != "gpt2" or not names & _WITH_LM_HEAD:
        raise CheckpointError(
            "{path}: the architecture is {found}; issun exports gpt2 (GPT2LMHeadModel).",
            path=path,
            found=f"{raw.get('model_type')} ({', '.join(map(str, architectures))})",
        )
    if _flag(raw, "add_cross_attention", path, default=False):
        raise CheckpointError(
            "{path}: add_cross_attention is set; issun exports models without it.", path=path
        )


def _whole(raw: dict[str, Any], key: str, path: Path) -> int:
    value = raw.get(key)
    limit = _MAX_LAYERS if key == "n_layer" else _MAX_SIZE
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise CheckpointError(
            "{path}: {key} is {value!r}, it must be a whole number from 1 to {limit:,}.",
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
