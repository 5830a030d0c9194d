"""issun's own route: the graph of `graph.py`, written one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from issun.export.calibrate import FEW, MANY, calibrate, calibration_ids, read_calibration_text
from issun.export.checkpoint import Checkpoint
from issun.export.error import product_error
from issun.export.graph import build_graph
from issun.export.lazy import EMBEDDING_BLOCK, CheckpointWeights
from issun.export.options import ExportOptions, Progress, Written
from issun.export.stored import StoredWeights
from issun.export.weights import Array
from issun.runtime.errors import ParameterError
from issun.runtime.files import reason_of, user_path
from issun.runtime.manifest import Precision, Template
from issun.runtime.tokenizer import Tokenizer

MODEL, MODEL_KV_INT8, DATA = "model.onnx", "model.kv-int8.onnx", "model.onnx.data"

_INLINE_BYTES = 4096  # smaller tensors stay in the graph's own file
_PAGE = 4096
_WORKERS = 2
_IN_FLIGHT_BYTES = 64 << 20


class NativeRoute:
    """Streams a checkpoint through the quantizer into the bundle's data file."""

    def __init__(self, checkpoint: Checkpoint, options: ExportOptions, template: Template) -> None:
        self._checkpoint, self._options, self._template = checkpoint, options, template
        self._weights = CheckpointWeights(checkpoint.config, checkpoint.tensors, options.precision)
        self._text = _calibration_text(options.calibrate)
        self._model = build_graph(checkpoint.config, self._weights)

    def disk_bytes(self) -> int:
        """Bytes of all tensors, each on its own pages."""
        sizes = [v.const_value.nbytes for v in self._initializers()]
        return sum(-(-size // _PAGE) * _PAGE for size in sizes)

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write `model.onnx` and its data; with an int8 KV cache a second graph over that data."""
        scales = self._calibrate(progress)
        self._model = build_graph(self._checkpoint.config, self._weights)  # as it is to be now
        total, done = self._total(), 0

        def wrote(tensor: ir.TensorProtocol, _: Any) -> None:
            nonlocal done
            progress("write", done, total)
            done += tensor.nbytes

        try:
            ir.save(
                self._model,
                folder / MODEL,
                external_data=DATA,
                size_threshold_bytes=_INLINE_BYTES,
                callback=wrote,
                max_workers=_WORKERS,
                max_in_flight_bytes=_IN_FLIGHT_BYTES,
                alignment=_PAGE,
                align_threshold=0,
            )
        except ir.serde.SerdeError as error:
            raise _first(error) from error
        progress("write", total, total)
        precision = _describe(self._weights, gptq=self._options.gptq)
        if self._options.kv_cache == "float32":
            return Written({"float32": MODEL}, precision)
        stored = StoredWeights(self._weights, ir.load(folder / MODEL))
        graph = build_graph(self._checkpoint.config, stored, scales)
        ir.save(graph, folder / MODEL_KV_INT8)
        return Written({"float32": MODEL, "int8": MODEL_KV_INT8}, precision)

    def _calibrate(self, progress: Progress) -> list[tuple[Array, Array]]:
        """Fit the weights to the shipped text, and give the KV cache's scales, where one asks."""
        error = product_error(self._options.precision)
        if error is None and self._options.kv_cache == "float32":
            return []
        config, source = self._checkpoint.config, self._checkpoint.tokenizer
        tokenizer = Tokenizer(source.path, source.special, do_lower_case=source.do_lower_case)
        total = self._total()
        windows = MANY if self._options.gptq else FEW
        return calibrate(
            self._weights,
            calibration_ids(config, tokenizer, self._template, self._text, windows=windows),
            error=error,
            gptq=self._options.gptq,
            progress=lambda layer: progress("calibrate", layer * total // config.n_layer, total),
        )

    def _total(self) -> int:
        return sum(v.const_value.nbytes for v in self._initializers())

    def _initializers(self) -> list[Any]:
        return list(self._model.graph.initializers.values())


def _calibration_text(path: Path | None) -> str:
    """The user's text, or the shipped one; raises ParameterError."""
    try:
        text = read_calibration_text(path and user_path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not text.strip():
        raise ParameterError("{path} holds no text.", path=path)
    return text


def _first(error: BaseException) -> BaseException:
    """What was raised at first: onnx_ir wraps what a small tensor raises, once a level."""
    while isinstance(error, ir.serde.SerdeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _describe(weights: CheckpointWeights, *, gptq: bool) -> Precision:
    if weights.precision == "float32":
        return Precision(name="float32", linears="float32", embedding="float32", head="float32")
    embedding = f"8-bit blocks of {EMBEDDING_BLOCK}"
    linears = {
        "int8": "int8 weights per output channel, activations quantized row by row",
        "int4": f"4-bit symmetric blocks of {weights.block}" + (", GPTQ" if gptq else ""),
    }[weights.precision]
    if weights.num_kept_apart:
        linears += f"; {weights.num_kept_apart} channels in float32"
    return Precision(name=weights.precision, linears=linears, embedding=embedding, head=embedding)
