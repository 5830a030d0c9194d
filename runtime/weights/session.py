"""ONNX Runtime sessions with the options that measurements justify."""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.errors import BundleError, OutOfMemoryError, check_range
from issun.runtime.weights.cores import physical_cores
from issun.runtime.weights.low_rank import LowRank
from issun.runtime.weights.proto import parse_model
from issun.runtime.weights.reduced_range import reduce_range, sums_fit
from issun.runtime.weights.split_head import split_head

# For a 128-row prefill, the fused Add + LayerNormalization is four times slower than the two.
_SLOW_FUSIONS = ["SkipLayerNormFusion", "LayerNormFusion"]
_MAX_THREADS = 1024


def open_session(
    path: Path, *, threads: int | None = None, low_rank: LowRank | None = None
) -> ort.InferenceSession:
    """Open the graph at `path` on the CPU with `threads` threads (default: physical cores).

    `low_rank` adds the products of adapters. Raises BundleError if ONNX Runtime rejects the file,
    ParameterError for a bad thread count.
    """
    options, content = make_options(threads), None
    if low_rank is not None or not rounds_activations() or integer_matmul_saturates():
        content = _changed(path, options, low_rank)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent)
        )
    session = create_session(path, options, content=content)
    if content:
        trim_heap()
    return session


def _changed(path: Path, options: ort.SessionOptions, low_rank: LowRank | None) -> bytes | None:
    """Return the graph at `path` with adapters, and for this CPU; None if it needs no change."""
    try:
        model = parse_model(path.read_bytes())
    except Exception:  # protobuf has its own DecodeError
        return None  # ONNX Runtime reports what is wrong with the file
    changed = adapt_to_cpu(model.graph, options)
    if low_rank is not None:
        low_rank.add_to(model, options)
    return model.SerializeToString() if changed or low_rank is not None else None


def adapt_to_cpu(graph: Any, options: ort.SessionOptions) -> bool:
    """Change a graph so that this CPU's kernels compute it correctly and fast; False if unchanged.

    `options` are those of the session that will run it.
    """
    saturates = integer_matmul_saturates() and not sums_fit(graph)
    reduced = saturates and reduce_range(graph)
    if saturates and not reduced:
        # Integer products of other exporters: ONNX Runtime makes the weights unsigned, which is
        # correct and slow.
        options.add_session_config_entry("session.x64quantprecision", "1")
    split = not rounds_activations() and split_head(graph)
    return reduced or split


def trim_heap() -> None:
    """Return freed memory of converted or packed weights to the system; glibc would keep it."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def create_session(
    path: Path, options: ort.SessionOptions, *, content: bytes | None = None
) -> ort.InferenceSession:
    """Open the graph at `path`, or its modified `content`.

    Raises BundleError, or OutOfMemoryError if memory is the reason.
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
                "There is not enough memory to open {path}: close other programs, or use a "
                "smaller precision.",
                path=path,
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            "ONNX Runtime cannot open {path}: {reason}", path=path, reason=reason
        ) from error


def session_of(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """A graph that this process has built itself."""
    return create_session(Path("graph"), options, content=model)


@contextmanager
def graph_errors() -> Iterator[None]:
    """Raise BundleError for errors of ONNX Runtime while a graph runs."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors share no base class
        foreign = type(error).__module__.startswith("onnxruntime")
        if is_out_of_memory(error) or not (foreign or type(error) is RuntimeError):
            raise
        raise BundleError(
            "The bundle's graph failed to run: {reason}. Export it again.",
            reason=" ".join(str(error).split())[:200],
        ) from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error of Python, the system or ONNX Runtime means out of memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):  # on Windows: out of memory, or the paging file is too small
        return error.errno == errno.ENOMEM or getattr(error, "winerror", None) in (8, 1455)
    # ONNX Runtime reports it only in the message.
    said = ("Failed to allocate", "bad_alloc", "Cannot allocate memory")
    return any(part in str(error) for part in said)


def make_options(threads: int | None = None) -> ort.SessionOptions:
    """Return options for `threads` threads (default: physical cores); raises ParameterError."""
    threads = physical_cores() if threads is None else threads
    check_range("threads", threads, Integral, 1, _MAX_THREADS)
    ort.disable_telemetry_events()  # also if onnxruntime was imported before issun
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # sequence lengths vary
    options.log_severity_level = 4  # errors reach the caller as exceptions
    return options


@cache
def integer_matmul_saturates() -> bool:
    """Return whether this CPU's default u8 x s8 kernel gives wrong sums (no VNNI).

    Measured instead of read from the CPU flags, which may be wrong under an emulator: a tiny graph
    multiplies the largest values, and the sum is compared with the exact one.
    """
    sums = _run_probe("saturation", lambda shape: np.full(shape, 255, np.uint8))
    return not bool(np.all(sums == 255 * 127 * 64))


@cache
def rounds_activations() -> bool:
    """Return whether this CPU has an integer kernel for MatMulNBits with 8-bit weights.

    Elsewhere (ARM without dot products, x86 without AVX2) ONNX Runtime converts the weights to
    float32 at each step. Measured as above: the integer kernel rounds small values next to a large
    one to zero.
    """

    def values(shape: Sequence[int]) -> NDArray[np.float32]:
        small = np.full(shape, 0.001, np.float32)
        small[:, 0] = 1
        return small

    return bool(np.all(_run_probe("rounding", values) < 1.03))


def _run_probe(name: str, values: Callable[[Sequence[int]], NDArray[Any]]) -> NDArray[Any]:
    """Run a graph of `issun.export.probes` on the values that `values` returns for its shape."""
    path = Path(__file__).with_name(f"{name}.onnx")
    session = ort.InferenceSession(str(path), make_options(1), providers=["CPUExecutionProvider"])
    (only,) = session.get_inputs()
    found: NDArray[Any] = session.run(None, {only.name: values(only.shape)})[0]
    return found
