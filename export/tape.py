"""Lays nodes one behind the other; constants and weights are made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from issun.export.lazy import WeightSource


class Tape:
    """The nodes of a graph over `weights`, in the order in which they are asked for."""

    def __init__(self, weights: WeightSource) -> None:
        self.weights = weights
        self.tape = ir.tape.Tape()
        self._shared: dict[str, ir.Value] = {}

    def op(
        self,
        name: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        output: ir.Value | None = None,
    ) -> ir.Value:
        """Lay a node of one output, and give that."""
        return self.tape.op(name, inputs, attributes, domain=domain, output=output)

    def weight(self, name: str) -> ir.Value:
        """The weight with this name."""
        if name not in self._shared:
            self._shared[name] = self.tape.initializer(self.weights.tensor(name), name)
        return self._shared[name]

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
        """An array that the graph holds under this name."""
        if name not in self._shared:
            self._shared[name] = self.tape.initializer(ir.tensor(array, name=name), name)
        return self._shared[name]

    def ints(self, name: str, values: list[int]) -> ir.Value:
        """An int64 vector."""
        return self.constant(name, np.array(values, np.int64))

    def scalar(self, name: str, value: np.generic) -> ir.Value:
        """A number."""
        return self.constant(name, np.array(value))
