"""The tensors of a graph that is written, for another one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.lazy import CheckpointWeights


class StoredWeights:
    """The tensors of a written graph, for another small graph over the same data file."""

    def __init__(self, source: CheckpointWeights, model: ir.Model) -> None:
        self._source = source
        self._tensors = {name: v.const_value for name, v in model.graph.initializers.items()}
        self.precision, self.block, self.kind = source.precision, source.block, source.kind

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The stored tensor with this name."""
        tensor = self._tensors[name]
        if tensor is None:
            raise KeyError(name)
        return tensor

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(in, out) of a linear's weight as the graph uses it."""
        return self._source.linear_shape(name)

    def kept_apart(self, base: str) -> NDArray[np.int64] | None:
        """Input channels of a linear that are multiplied in float32, as `.apart`; or none."""
        return self._source.kept_apart(base)
