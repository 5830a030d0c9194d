"""ONNX Runtime sessions with the options that were measured to matter."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from issun.runtime.errors import BundleError, ParameterError

# Fused Add + LayerNormalization is four times slower than the two for a prefill of 128 rows.
_SLOW_FUSIONS = ["SkipLayerNormFusion", "LayerNormFusion"]
_MAX_THREADS = 1024


def open_session(path: Path, *, threads: int | None = None) -> ort.InferenceSession:
    """Open the graph at `path` on the CPU with `threads` threads (default: physical cores).

    Raises BundleError when ONNX Runtime refuses the file, ParameterError for a bad thread count.
    """
    return create_session(path, make_options(threads))


def create_session(
    path: Path, options: ort.SessionOptions, *, content: bytes | None = None
) -> ort.InferenceSession:
    """Open the graph at `path`, or its `content` where that was changed after reading."""
    try:
        return ort.InferenceSession(
            content or str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOW_FUSIONS,
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            "ONNX Runtime cannot open {path}: {reason}", path=path, reason=reason
        ) from error


def make_options(threads: int | None = None) -> ort.SessionOptions:
    """Options for `threads` threads (default: physical cores); raises ParameterError."""
    options = _options(physical_cores() if threads is None else threads)
    if integer_matmul_saturates():
        # Without VNNI the u8 x s8 kernel adds pairs in 16 bits and saturates: int8 would be wrong.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _options(threads: int) -> ort.SessionOptions:
    if not isinstance(threads, int) or not 1 <= threads <= _MAX_THREADS:
        raise ParameterError(
            "threads is {value!r}, it must be from 1 to {limit}.", value=threads, limit=_MAX_THREADS
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # sequence lengths vary
    options.log_severity_level = 4  # errors reach the caller as exceptions
    return options


def physical_cores() -> int:
    """Physical cores that this process may use."""
    import psutil  # noqa: PLC0415

    cores: int = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return cores


@cache
def integer_matmul_saturates() -> bool:
    """True where this CPU's default u8 x s8 kernel gives wrong sums (no VNNI).

    Asked by doing: a tiny graph multiplies the largest values and the sum is compared with the
    exact one, which also holds under an emulator, where the reported CPU flags may not.
    """
    session = ort.InferenceSession(
        str(Path(__file__).with_name("saturation.onnx")),
        _options(1),
        providers=["CPUExecutionProvider"],
    )
    (weight,) = session.get_inputs()
    rows, depth = weight.shape
    sums = session.run(None, {weight.name: np.full((rows, depth), 255, np.uint8)})[0]
    return not bool(np.all(sums == 255 * 127 * depth))
