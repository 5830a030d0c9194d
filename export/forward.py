"""A float32 transformer block in numpy that also returns the inputs of its linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from issun.export.config import ACTIVATIONS, GPT2Config
from issun.export.weights import Array

GetTensor = Callable[[str], Array]


@dataclass(frozen=True, slots=True)
class BlockActivations:
    """A block's output, its keys and values, and the input of each linear layer by name.

    Output and inputs are (window, position, width), keys and values (window, head, position,
    head_dim).
    """

    output: Array
    keys: Array
    values: Array
    inputs: dict[str, Array]


def run_block(config: GPT2Config, layer: int, x: Array, get: GetTensor) -> BlockActivations:
    """Run block `layer` on x, (window, position, n_embd); `get` returns its tensors by name."""
    first = layer_norm(x, get("ln_1.weight"), get("ln_1.bias"), config.layer_norm_epsilon)
    qkv = first @ get("attn.c_attn.weight") + get("attn.c_attn.bias")
    attended, key, value = attend(config, layer, qkv)
    x = x + attended @ get("attn.c_proj.weight") + get("attn.c_proj.bias")
    second = layer_norm(x, get("ln_2.weight"), get("ln_2.bias"), config.layer_norm_epsilon)
    active = activate(config, second @ get("mlp.c_fc.weight") + get("mlp.c_fc.bias"))
    x = x + active @ get("mlp.c_proj.weight") + get("mlp.c_proj.bias")
    inputs = {
        "attn.c_attn": first,
        "attn.c_proj": attended,
        "mlp.c_fc": second,
        "mlp.c_proj": active,
    }
    return BlockActivations(x, key, value, inputs)


def attend(config: GPT2Config, layer: int, qkv: Array) -> tuple[Array, Array, Array]:
    """Causal attention within each window; returns its output, keys and values."""
    windows, length, _ = qkv.shape
    heads = qkv.reshape(windows, length, 3, config.n_head, config.head_dim)
    query, key, value = heads.transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2) * np.float32(config.attention_scale(layer))
    scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    attended = (weights @ value).transpose(0, 2, 1, 3).reshape(windows, length, config.n_embd)
    return attended, key, value


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """LayerNormalization over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    normed: Array = centred / np.sqrt(variance + np.float32(epsilon)) * weight + bias
    return normed


def activate(config: GPT2Config, x: Array) -> Array:
    """Apply the activation one window at a time, which keeps the temporary arrays small."""
    exact = ACTIVATIONS[config.activation_function] == "Gelu"
    active = np.empty_like(x)
    for window, rows in zip(active, x, strict=True):
        if exact:
            gate = _erf(rows / np.float32(np.sqrt(2)))
        else:
            cubed = rows * rows * rows  # ten times faster than rows**3
            gate = np.tanh(np.float32(np.sqrt(2 / np.pi)) * (rows + np.float32(0.044715) * cubed))
        window[:] = rows * (1 + gate) / 2
    return active


def _erf(x: Array) -> Array:
    """The error function within 2e-7. Source: Abramowitz and Stegun (1964), formula 7.1.26."""
    t: Array = np.reciprocal(np.float32(1) + np.float32(0.3275911) * np.abs(x))
    sum_ = np.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        sum_ = (sum_ + np.float32(factor)) * t
    found: Array = (np.sign(x) * (1 - sum_ * np.exp(-np.square(x)))).astype(np.float32)
    return found
