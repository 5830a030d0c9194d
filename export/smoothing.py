"""SmoothQuant: evens out the input channels of linear layers, which is exact in float32.

Each channel's factor divides the layer before (the weight and bias of LayerNormalization, or the
attention values) and multiplies the rows of the linear layer's weight. Source: Xiao et al.,
"SmoothQuant" (2022); here the strength is chosen for each linear layer by its output error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from issun.export.forward import BlockActivations, GetTensor
from issun.export.weights import Array, Tensor

STRENGTHS = (0.35, 0.5, 0.65, 0.8)  # alpha: 0 evens out the weights only, 1 the activations only

# Inputs (rows, in) and a weight (in, out) -> the squared error of their quantized product.
Loss = Callable[[Array, Array], float]

_ROWS, _COLUMNS = 256, 256  # sample of inputs and weight on which strengths are compared

_PARTS = (
    *("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"),
    *("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "mlp.c_fc.weight"),
)


@dataclass(frozen=True, slots=True)
class Factors:
    """The smoothing factors of one block, each (n_embd,)."""

    attention: Array  # for the inputs of attn.c_attn
    value: Array  # for the inputs of attn.c_proj
    mlp: Array  # for the inputs of mlp.c_fc

    def apply(self, name: str, array: Array) -> Array:
        """The block's tensor `name` after smoothing."""
        width = len(self.value)
        match name:
            case "ln_1.weight" | "ln_1.bias":
                return array / self.attention
            case "ln_2.weight" | "ln_2.bias":
                return array / self.mlp
            case "mlp.c_fc.weight":
                return array * self.mlp[:, None]
            case "attn.c_proj.weight":
                return array * self.value[:, None]
            case "attn.c_attn.weight" | "attn.c_attn.bias":
                rows = array * self.attention[:, None] if array.ndim == 2 else array.copy()
                rows[..., 2 * width :] /= self.value
                return rows
        return array

    def divide(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The inputs of the block's linear layers by name, after smoothing."""
        own = {"attn.c_attn": self.attention, "attn.c_proj": self.value, "mlp.c_fc": self.mlp}
        return {name: rows / own[name] if name in own else rows for name, rows in inputs.items()}


class SmoothedTensor(Tensor):
    """A stored tensor after smoothing."""

    def __init__(self, stored: Tensor, part: str, factors: Factors) -> None:
        super().__init__(stored.name, stored.shape, stored.dtype)
        self._stored, self._part, self._factors = stored, part, factors

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        return self._factors.apply(self._part, self._stored.read())[start:stop]


def smoothed(tensors: Mapping[str, Tensor], layer: int, factors: Factors) -> dict[str, Tensor]:
    """The tensors of block `layer` that smoothing changes, with the factors applied."""
    return {
        name: SmoothedTensor(tensors[name], part, factors)
        for part in _PARTS
        for name in (f"h.{layer}.{part}",)
    }


def find_factors(activations: BlockActivations, get: GetTensor, loss: Loss) -> Factors:
    """The best factors for a block's activations; `get` returns its tensors by name."""

    def best(name: str) -> Array:
        return _best(activations.inputs[name], get(f"{name}.weight"), loss)

    return Factors(best("attn.c_attn"), best("attn.c_proj"), best("mlp.c_fc"))


def sample(inputs: Array, weight: Array) -> tuple[Array, Array]:
    """Some rows of the inputs and some columns of the weight, all quantized independently."""
    rows, columns = -(-len(inputs) // _ROWS), -(-weight.shape[1] // _COLUMNS)
    return inputs[::rows], np.ascontiguousarray(weight[:, ::columns])


def _best(inputs: Array, weight: Array, loss: Loss) -> Array:
    """The channels' factors with the least loss; ones if no strength improves it."""
    inputs = inputs.reshape(-1, inputs.shape[-1])
    peaks = np.abs(inputs).max(axis=0)
    largest = np.maximum(weight.max(axis=1), -weight.min(axis=1))  # np.abs would copy 67 MB
    rows, columns = sample(inputs, weight)
    best = np.ones(len(weight), np.float32)
    least = loss(rows, columns)
    for strength in STRENGTHS:
        factor = _factor(peaks, largest, strength)
        value = loss(rows / factor, columns * factor[:, None])
        if value < least:
            best, least = factor, value
    return best


def _factor(peaks: Array, largest: Array, strength: float) -> Array:
    """peaks^strength / largest^(1 - strength), normalized; 1 for channels that are all zero."""
    used = (peaks > 1e-12) & (largest > 1e-12)
    logs = np.zeros(len(peaks))
    logs[used] = strength * np.log(peaks[used]) - (1 - strength) * np.log(largest[used])
    logs[used] -= logs[used].mean() if used.any() else 0
    factor: Array = np.exp(np.clip(logs, -12, 12)).astype(np.float32)
    return factor
