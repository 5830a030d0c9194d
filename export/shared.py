"""Tensors that are computed when they are written, and share one quantization of a weight."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from issun.export.errors import CheckpointError
from issun.export.quantize import Quantized
from issun.export.weights import Array


class SharedTensor:
    """Quantizes a weight once for several tensors: its values, its scales, a folded bias.

    The result is freed when all `readers` have it, and computed again if there are more reads.
    """

    def __init__(self, name: str, quantize: Callable[[], Quantized], *, readers: int = 2) -> None:
        self._name, self._quantize = name, quantize
        self._readers = self._remaining = readers
        self._lock = threading.Lock()
        self._result: Quantized | None = None

    def values(self) -> NDArray[np.int8] | NDArray[np.uint8]:
        """The integers."""
        return self._get().values

    def scales(self) -> Array:
        """The scales."""
        return self._get().scales

    def column_sums(self) -> Array:
        """The sum of each output channel's weights after `quantize_grouped`."""
        quantized = self._get()
        groups, out = quantized.scales.shape
        integers = quantized.values.reshape(groups, -1, out).sum(axis=1, dtype=np.int64)
        sums: Array = (integers * quantized.scales).sum(axis=0).astype(np.float32)
        return sums

    def _get(self) -> Quantized:
        with self._lock:
            result = self._result or self._compute()
            self._remaining = (self._remaining or self._readers) - 1
            self._result = result if self._remaining else None
            return result

    def _compute(self) -> Quantized:
        result = self._quantize()
        if not np.isfinite(result.scales).all():
            raise CheckpointError("{name} contains NaN or infinity.", name=self._name)
        return result


def lazy_tensor(
    name: str,
    dtype: ir.DataType,
    shape: tuple[int, ...],
    compute: Callable[[], NDArray[np.generic]],
) -> ir.LazyTensor:
    """A tensor of known shape whose values `compute` returns when it is written."""
    return ir.LazyTensor(
        lambda: ir.tensor(np.ascontiguousarray(compute()), name=name),
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )
