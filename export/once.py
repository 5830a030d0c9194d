"""Tensors computed at the moment they are written, and weights quantized once for two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.errors import CheckpointError
from issun.export.quantize import Quantized
from issun.export.weights import Array


class Once:
    """Quantizes one weight for its two readers, the writer of values and that of scales."""

    def __init__(self, name: str, quantize: Callable[[], Quantized]) -> None:
        self._name, self._quantize = name, quantize
        self._lock = threading.Lock()
        self._held: Quantized | None = None

    def values(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        """The integers."""
        return self._take().values

    def scales(self) -> Array:
        """The scales."""
        return self._take().scales

    def _take(self) -> Quantized:
        """The result: kept for the second reader, dropped when that one has it."""
        with self._lock:
            if self._held is not None:
                held, self._held = self._held, None
                return held
            self._held = self._quantize()
            if not np.isfinite(self._held.scales).all():
                raise CheckpointError("{name} holds NaN or infinity.", name=f"{self._name}.weight")
            return self._held


def lazy(
    name: str,
    dtype: ir.DataType,
    shape: tuple[int, ...],
    compute: Callable[[], NDArray[np.generic]],
) -> ir.LazyTensor:
    """A tensor of this shape that `compute` makes when it is written."""
    return ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(compute()), name=name),
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )
