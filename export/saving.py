"""Writes a graph and its data file, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

_INLINE_BYTES = 4096  # smaller tensors stay in the graph's own file
_PAGE = 4096
_WORKERS = 2
_IN_FLIGHT_BYTES = 64 << 20


def save_model(
    model: ir.Model, path: Path, data: str, progress: Callable[[int, int], object]
) -> None:
    """Write `model` to `path`, and its tensors to the file `data` next to it, each on a page.

    `progress` is called with the bytes that are written and their total.
    """
    total, done = sum(_sizes(model)), 0

    def report(tensor: ir.TensorProtocol, _: Any) -> None:
        nonlocal done
        progress(done, total)
        done += tensor.nbytes

    try:
        ir.save(
            model,
            path,
            external_data=data,
            size_threshold_bytes=_INLINE_BYTES,
            callback=report,
            max_workers=_WORKERS,
            max_in_flight_bytes=_IN_FLIGHT_BYTES,
            alignment=_PAGE,
            align_threshold=0,
        )
    except ir.serde.SerdeError as error:
        raise _root_cause(error) from error
    progress(total, total)


def data_bytes(model: ir.Model) -> int:
    """The size of the data file of a model."""
    return sum(-(-size // _PAGE) * _PAGE for size in _sizes(model) if size > _INLINE_BYTES)


def _sizes(model: ir.Model) -> Iterator[int]:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return (tensor.nbytes for tensor in tensors if tensor is not None)


def _root_cause(error: BaseException) -> BaseException:
    """The original error: onnx_ir wraps what a small tensor raises, once per level."""
    while isinstance(error, ir.serde.SerdeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
