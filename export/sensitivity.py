"""How far each linear of a block, once quantized, moves what the block gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from issun.export.config import GPT2Config
from issun.export.error import rounded_product
from issun.export.forward import Get, activate, attend
from issun.export.lazy import LIFTED, Kind
from issun.export.weights import Array

QUANTIZED: tuple[Kind, ...] = ("int4", "int8")
_WINDOWS = 2  # of those that were seen
_BEHIND = {"attn.c_attn": "attn.c_proj", "mlp.c_fc": LIFTED}

Moves = dict[str, dict[Kind, float]]  # linear -> precision -> share of the output's energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block that has seen some text: its output, and its linears' inputs and tensors."""

    config: GPT2Config
    layer: int
    output: Array
    inputs: Mapping[str, Array]
    get: Get
    apart: NDArray[np.int64] | None  # channels of the last linear that stay in float32

    def moves(self) -> Moves:
        """For each linear and precision the energy of what it changes in the output.

        As a share of the output's own energy, the mean over positions. Each linear is quantized
        alone, and what follows it in its half of the block is float32.
        """
        size = np.square(self.output[:_WINDOWS]).sum(axis=-1)
        found: Moves = {}
        for name in self.inputs:
            rows, weight = self._rounded_part(name)
            exact = rows @ weight
            found[name] = {}
            for kind in QUANTIZED:
                change = rounded_product(rows, weight, kind, name) - exact
                moved = self._at_the_end(name, self._in_windows(exact), self._in_windows(change))
                found[name][kind] = float((np.square(moved).sum(axis=-1) / size).mean())
        return found

    def _rounded_part(self, name: str) -> tuple[Array, Array]:
        """Inputs (rows, in) and weight (in, out), less the channels that are not rounded."""
        rows, weight = self._rows(name), self.get(f"{name}.weight")
        if name == LIFTED and self.apart is not None:
            rows, weight = rows.copy(), weight.copy()
            rows[:, self.apart], weight[self.apart] = 0, 0
        return rows, weight

    def _at_the_end(self, name: str, exact: Array, change: Array) -> Array:
        """What a change of a linear's product is at the end of its half of the block."""
        if name not in _BEHIND:
            return change
        changed: Array = exact + self.get(f"{name}.bias") + change
        if name == "attn.c_attn":
            after, _, _ = attend(self.config, self.layer, changed)
        else:
            after = activate(self.config, changed)
        behind = _BEHIND[name]
        changed = after - self.inputs[behind][:_WINDOWS]
        moved: Array = np.matmul(changed, self.get(f"{behind}.weight"))
        return moved

    def _rows(self, name: str) -> Array:
        whole = self.inputs[name][:_WINDOWS]
        return whole.reshape(-1, whole.shape[-1])

    def _in_windows(self, rows: Array) -> Array:
        return rows.reshape(*self.output[:_WINDOWS].shape[:2], -1)
