"""Tensors computed at the moment they are written, and weights quantized once for some of them."""

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
    """Quantizes one weight for its `readers`: the writer of values, that of scales, others."""

    def __init__(self, name: str, quantize: Callable[[], Quantized], *, readers: int = 2) -> None:
        self._name, self._quantize = name, quantize
        self._readers = self._left = readers
        self._lock = threading.Lock()
        self._held: Quantized | None = None

    def values(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        """The integers."""
        return self._take().values

    def scales(self) -> Array:
        """The scales."""
        return self._take().scales

    def column_sums(self) -> Array:
        """The sum of each output channel's weights, as they are rounded."""
        made = self._take()
        whole = made.values.sum(axis=0, dtype=np.int64)
        sums: Array = (whole * made.scales).astype(np.float32)
        return sums

    def _take(self) -> Quantized:
        """The result: kept until the last reader has it."""
        with self._lock:
            found = self._held or self._checked()
            self._left = (self._left or self._readers) - 1
            self._held = found if self._left else None
            return found

    def _checked(self) -> Quantized:
        found = self._quantize()
        if not np.isfinite(found.scales).all():
            raise CheckpointError("{name} holds NaN or infinity.", name=f"{self._name}.weight")
        return found


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
