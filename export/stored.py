"""Reuses the tensors of a written graph in a second graph over the same data file."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.lazy import CheckpointWeights


class StoredWeights:
    """A WeightSource over the tensors of a written graph."""

    def __init__(self, source: CheckpointWeights, model: ir.Model) -> None:
        self._source = source
        self._tensors = {name: v.const_value for name, v in model.graph.initializers.items()}
        self.precision, self.kind = source.precision, source.kind

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The stored tensor with this name."""
        tensor = self._tensors[name]
        if tensor is None:
            raise KeyError(name)
        return tensor

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear layer's weight in the graph."""
        return self._source.linear_shape(name)

    def has(self, name: str) -> bool:
        """True if the network has this tensor."""
        return self._source.has(name)

    def floor(self, base: str) -> float | None:
        """What is added to the inputs of a linear layer in int8 so that they are not negative."""
        return self._source.floor(base)

    def outlier_channels(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear layer that are multiplied in float32, if any."""
        return self._source.outlier_channels(base)
