"""ONNX Runtime sessions with the options that were measured to matter."""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

from issun.runtime.cores import physical_cores
from issun.runtime.errors import BundleError, OutOfMemoryError, ParameterError

# Fused Add + LayerNormalization is four times slower than the two for a prefill of 128 rows.
_SLOW_FUSIONS = ["SkipLayerNormFusion", "LayerNormFusion"]
_MAX_THREADS = 1024


def open_session(path: Path, *, threads: int | None = None) -> ort.InferenceSession:
    """Open the graph at `path` on the CPU with `threads` threads (default: physical cores).

    Raises BundleError when ONNX Runtime refuses the file, ParameterError for a bad thread count.
    """
    session = create_session(path, make_options(threads))
    if integer_matmul_saturates():
        _trim_heap()
    return session


def _trim_heap() -> None:
    """Give back what ONNX Runtime has freed of converted weights; glibc would keep all of it."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def create_session(
    path: Path, options: ort.SessionOptions, *, content: bytes | None = None
) -> ort.InferenceSession:
    """Open the graph at `path`, or its `content` where that was changed after reading.

    Raises BundleError, and OutOfMemoryError where that is the reason.
    """
    try:
        return ort.InferenceSession(
            content or str(path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_SLOW_FUSIONS,
            enable_fallback=False,  # it prints, and tries the same again
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                "There is not enough memory to open {path}: close other programs, or take a "
                "smaller precision.",
                path=path,
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            "ONNX Runtime cannot open {path}: {reason}", path=path, reason=reason
        ) from error


@contextmanager
def graph_errors() -> Iterator[None]:
    """Raise BundleError for what ONNX Runtime says of a graph while it runs."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors share no base class
        foreign = type(error).__module__.startswith("onnxruntime")
        if is_out_of_memory(error) or not (foreign or type(error) is RuntimeError):
            raise
        raise BundleError(
            "The bundle's graph cannot be computed: {reason}. Export it again.",
            reason=" ".join(str(error).split())[:200],
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of Python's, the system's or ONNX Runtime's says that memory is short."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):  # on Windows: no memory, or the paging file is too small
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in (8, 1455)
    # ONNX Runtime says it in words alone.
    said = ("Failed to allocate", "bad_alloc", "Cannot allocate memory")
    return any(part in str(error) for part in said)


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
    ort.disable_telemetry_events()  # for a program that has imported it before issun
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # sequence lengths vary
    options.log_severity_level = 4  # errors reach the caller as exceptions
    return options


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
