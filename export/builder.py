"""Builds an ONNX graph node by node; weights and constants are added once and shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from issun.export.lazy import WeightSource


class GraphBuilder:
    """Collects a graph's nodes in the order of the calls, and its initializers from `weights`."""

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
        """Add a node with one output, and return the output."""
        return self.tape.op(name, inputs, attributes, domain=domain, output=output)

    def weight(self, name: str) -> ir.Value:
        """The weight with this name."""
        if name not in self._shared:
            self._shared[name] = self.tape.initializer(self.weights.tensor(name), name)
        return self._shared[name]

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
        """The array as an initializer with this name."""
        if name not in self._shared:
            self._shared[name] = self.tape.initializer(ir.tensor(array, name=name), name)
        return self._shared[name]

    def ints(self, name: str, values: list[int]) -> ir.Value:
        """An int64 vector as an initializer."""
        return self.constant(name, np.array(values, np.int64))

    def scalar(self, name: str, value: np.generic) -> ir.Value:
        """A scalar as an initializer."""
        return self.constant(name, np.array(value))
