"""Evens out the channels that go into a linear: exact in float32, kinder to 8 and 4 bits.

A factor a channel is divided out of what comes before (LayerNormalization's weight and bias, or the
values of attention) and multiplied into the rows of the weight behind. Source: Xiao et al.,
"SmoothQuant" (2022); here the strength is chosen for each linear by the error of its output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from issun.export.forward import Get, Seen
from issun.export.weights import Array, Tensor

STRENGTHS = (0.35, 0.5, 0.65, 0.8)  # 0 evens out the weights alone, 1 the activations

# Inputs (rows, in) and a weight (in, out) -> the squared error of their product once quantized.
Error = Callable[[Array, Array], float]

_ROWS, _COLUMNS = 256, 256  # of inputs and weight, on which a strength is tried


_PARTS = (
    *("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"),
    *("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "mlp.c_fc.weight"),
)


@dataclass(frozen=True, slots=True)
class Factors:
    """What one block's channels are divided by, each (n_embd,)."""

    attention: Array  # in front of attn.c_attn
    value: Array  # in front of attn.c_proj
    mlp: Array  # in front of mlp.c_fc

    def apply(self, name: str, array: Array) -> Array:
        """The block's tensor `name` with the factors in it."""
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
        """The inputs of the block's linears by name, as they are with factors in the weights."""
        own = {"attn.c_attn": self.attention, "attn.c_proj": self.value, "mlp.c_fc": self.mlp}
        return {name: rows / own[name] if name in own else rows for name, rows in inputs.items()}


class SmoothedTensor(Tensor):
    """A stored tensor with its block's factors in it."""

    def __init__(self, stored: Tensor, part: str, factors: Factors) -> None:
        super().__init__(stored.name, stored.shape, stored.dtype)
        self._stored, self._part, self._factors = stored, part, factors

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows `start` to `stop` of the first axis as float32."""
        return self._factors.apply(self._part, self._stored.read())[start:stop]


def smoothed(tensors: Mapping[str, Tensor], layer: int, factors: Factors) -> dict[str, Tensor]:
    """The tensors of block number `layer` that get factors, with these in them."""
    return {
        name: SmoothedTensor(tensors[name], part, factors)
        for part in _PARTS
        for name in (f"h.{layer}.{part}",)
    }


def find_factors(seen: Seen, get: Get, error: Error) -> Factors:
    """The factors of a block that has seen some text; `get` gives its tensors by name."""

    def best(name: str) -> Array:
        return _best(seen.inputs[name], get(f"{name}.weight"), error)

    return Factors(best("attn.c_attn"), best("attn.c_proj"), best("mlp.c_fc"))


def sample(inputs: Array, weight: Array) -> tuple[Array, Array]:
    """Some rows of the inputs and some columns of the weight: each is quantized by itself."""
    rows, columns = -(-len(inputs) // _ROWS), -(-weight.shape[1] // _COLUMNS)
    return inputs[::rows], np.ascontiguousarray(weight[:, ::columns])


def _best(inputs: Array, weight: Array, error: Error) -> Array:
    """The factor of each channel that leaves the least error; 1 where none does better."""
    inputs = inputs.reshape(-1, inputs.shape[-1])
    peaks = np.abs(inputs).max(axis=0)
    largest = np.maximum(weight.max(axis=1), -weight.min(axis=1))  # a copy would be 67 MB
    rows, some = sample(inputs, weight)
    chosen = np.ones(len(weight), np.float32)
    least = error(rows, some)
    for strength in STRENGTHS:
        factor = _factor(peaks, largest, strength)
        found = error(rows / factor, some * factor[:, None])
        if found < least:
            chosen, least = factor, found
    return chosen


def _factor(peaks: Array, largest: Array, strength: float) -> Array:
    """Channels that are never used, or that nothing is made of, are left as they are."""
    used = (peaks > 1e-12) & (largest > 1e-12)
    logs = np.zeros(len(peaks))
    logs[used] = strength * np.log(peaks[used]) - (1 - strength) * np.log(largest[used])
    logs[used] -= logs[used].mean() if used.any() else 0
    factor: Array = np.exp(np.clip(logs, -12, 12)).astype(np.float32)
    return factor
