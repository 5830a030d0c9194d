"""The description of a decoder-only transformer, from which graph and calibration are built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from issun.runtime.manifest import Architecture

# transformers' name -> the operator of the graph; "Silu" is x * sigmoid(x).
ACTIVATIONS = {
    "gelu": "Gelu",
    "gelu_fast": "FastGelu",
    "gelu_new": "FastGelu",
    "gelu_python": "Gelu",
    "gelu_pytorch_tanh": "FastGelu",
    "relu": "Relu",
    "silu": "Silu",
    "swish": "Silu",
}
_FLOORS = {"Gelu": 0.1701, "FastGelu": 0.1701, "Silu": 0.2785, "Relu": 0.0}  # minima, negated
FULL = -1  # the window of a layer that attends to all positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Rotary position embedding of the first `dim` channels of each head.

    Channel j rotates with channel j + dim / 2. `scaling` has the fields of config.json's
    `rope_scaling`. `trained` is max_position_embeddings, which YaRN needs.
    """

    dim: int
    theta: float
    scaling: Mapping[str, Any] = field(default_factory=dict)
    trained: int = 0

    @property
    def kind(self) -> str:
        """The name of the scaling in transformers: default, linear, dynamic, llama3 or yarn."""
        return str(self.scaling.get("rope_type") or self.scaling.get("type") or "default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The sizes and flags that define a network; tuples have one entry per layer.

    `biases` names the linear layers of a block (qkv, out, gate, up, down) that have a bias.
    """

    family: str  # config.json's model_type
    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    head_dim: int
    n_inner: int
    n_positions: int
    vocab_size: int
    activation: str
    epsilon: float
    tie_word_embeddings: bool
    scales: tuple[float, ...]  # factors of the attention scores
    norm: Literal["layer", "rms"] = "layer"
    biases: frozenset[str] = frozenset({"qkv", "out", "up", "down"})
    learned_positions: bool = False
    gated: bool = False  # the MLP is down(activation(gate(x)) * up(x))
    parallel: bool = False  # attention and MLP read the same input of the block
    head_norms: bool = False  # an RMS norm of each head's queries and keys
    rotary: Rotary | None = None
    windows: tuple[int, ...] = ()  # of local attention, or FULL; empty if all are FULL

    @property
    def kv_head_dim(self) -> int:
        """The padded width of one head in the graph.

        GroupQueryAttention needs a multiple of 16 channels with rotary embedding, and a multiple
        of 8 without.
        """
        step = 16 if self.rotary else 8
        return -(-self.head_dim // step) * step

    @property
    def activation_floor(self) -> float | None:
        """The inputs of `down` are at least minus this; None if the MLP is gated: no bound."""
        return None if self.gated else _FLOORS[ACTIVATIONS[self.activation]]

    def architecture(self, *, padded: bool = True) -> Architecture:
        """The manifest's `architecture`, with the padded width of heads if `padded`."""
        return Architecture(
            family=self.family,
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            n_head=self.n_head,
            n_kv_head=self.n_kv_head,
            n_inner=self.n_inner,
            n_positions=self.n_positions,
            vocab_size=self.vocab_size,
            kv_head_dim=self.kv_head_dim if padded else self.head_dim,
            activation_function=self.activation,
            layer_norm_epsilon=self.epsilon,
            tie_word_embeddings=self.tie_word_embeddings,
        )

    def window(self, layer: int) -> int:
        """The number of positions that a query attends to, its own included, or FULL."""
        return self.windows[layer] if self.windows else FULL
