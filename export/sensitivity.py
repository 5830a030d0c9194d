"""The sensitivity of a block's output to the quantization of each of its linear layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from issun.export.config import GPT2Config
from issun.export.forward import GetTensor, activate, attend
from issun.export.lazy import DOWN_PROJ, Kind
from issun.export.quantization_loss import quantized_product
from issun.export.weights import Array

QUANTIZED: tuple[Kind, ...] = ("int4", "int8")
_WINDOWS = 2  # of the calibration windows
_NEXT = {"attn.c_attn": "attn.c_proj", "mlp.c_fc": DOWN_PROJ}

# Linear layer -> precision -> energy of the output's change, relative to the output's energy.
Sensitivities = dict[str, dict[Kind, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityProbe:
    """One block with its float32 output, and the inputs and tensors of its linear layers."""

    config: GPT2Config
    layer: int
    output: Array
    inputs: Mapping[str, Array]
    get: GetTensor
    outliers: NDArray[np.int64] | None  # input channels of the last linear layer kept in float32

    def measure(self) -> Sensitivities:
        """For each linear layer and precision, the relative energy of the output's change.

        The mean over positions. Each linear layer is quantized alone; the rest of its half of the
        block stays float32.
        """
        energy = np.square(self.output[:_WINDOWS]).sum(axis=-1)
        found: Sensitivities = {}
        for name in self.inputs:
            rows, weight = self._without_outliers(name)
            exact = rows @ weight
            found[name] = {}
            for kind in QUANTIZED:
                error = quantized_product(rows, weight, kind, name) - exact
                change = self._propagate(name, self._in_windows(exact), self._in_windows(error))
                found[name][kind] = float((np.square(change).sum(axis=-1) / energy).mean())
        return found

    def _without_outliers(self, name: str) -> tuple[Array, Array]:
        """Inputs (rows, in) and weight (in, out), with outlier channels set to zero."""
        rows, weight = self._rows(name), self.get(f"{name}.weight")
        if name == DOWN_PROJ and self.outliers is not None:
            rows, weight = rows.copy(), weight.copy()
            rows[:, self.outliers], weight[self.outliers] = 0, 0
        return rows, weight

    def _propagate(self, name: str, exact: Array, error: Array) -> Array:
        """The change at the end of a half block that an error in a linear layer's product makes."""
        if name not in _NEXT:
            return error
        product: Array = exact + self.get(f"{name}.bias") + error
        if name == "attn.c_attn":
            inputs, _, _ = attend(self.config, self.layer, product)
        else:
            inputs = activate(self.config, product)
        following = _NEXT[name]
        error = inputs - self.inputs[following][:_WINDOWS]
        change: Array = np.matmul(error, self.get(f"{following}.weight"))
        return change

    def _rows(self, name: str) -> Array:
        inputs = self.inputs[name][:_WINDOWS]
        return inputs.reshape(-1, inputs.shape[-1])

    def _in_windows(self, rows: Array) -> Array:
        return rows.reshape(*self.output[:_WINDOWS].shape[:2], -1)
