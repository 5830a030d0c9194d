"""issun's own route: the graph of `graph.py`, written one tensor at a time."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import onnx_ir as ir

from issun.export.calibrate import (
    FEW,
    MANY,
    WINDOW,
    Calibrated,
    calibrate,
    calibration_ids,
    cut_windows,
    read_calibration_text,
)
from issun.export.checkpoint import Checkpoint
from issun.export.error import product_error
from issun.export.errors import CheckpointError
from issun.export.fitted import FittedStore
from issun.export.graph import build_graph
from issun.export.lazy import EMBEDDING_BLOCK, CheckpointWeights, Precision
from issun.export.mixed import check_budget, choose, describe
from issun.export.options import ExportOptions, Progress, Written
from issun.export.stored import StoredWeights
from issun.export.verify import kl_to_float32
from issun.runtime.errors import ParameterError
from issun.runtime.files import reason_of, user_path
from issun.runtime.manifest import Precision as PrecisionInfo
from issun.runtime.manifest import Template

MODEL, MODEL_KV_INT8, DATA = "model.onnx", "model.kv-int8.onnx", "model.onnx.data"

_INLINE_BYTES = 4096  # smaller tensors stay in the graph's own file
_PAGE = 4096
_WORKERS = 2
_IN_FLIGHT_BYTES = 64 << 20
_MARGIN = 0.9  # of what would just keep a promise


class NativeRoute:
    """Streams a checkpoint through the quantizer into the bundle's data file."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ExportOptions,
        template: Template,
        store: FittedStore | None = None,
    ) -> None:
        self._checkpoint, self._options, self._template = checkpoint, options, template
        self._store = store
        precision: Precision = "mixed" if options.mixed else options.precision
        self._weights = CheckpointWeights(checkpoint.config, checkpoint.tensors, precision)
        self._text = _calibration_text(options.calibrate)
        self._model = build_graph(checkpoint.config, self._weights)

    def disk_bytes(self) -> int:
        """Disk space that the writing needs."""
        fitted = 2 if self._options.gptq else 1  # they lie beside the target first
        return max(fitted * self._disk_bytes(), self._options.budget or 0)

    def _disk_bytes(self) -> int:
        """Bytes of all tensors, each on its own pages."""
        sizes = [v.const_value.nbytes for v in self._initializers()]
        return sum(-(-size // _PAGE) * _PAGE for size in sizes)

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write `model.onnx` and its data; with an int8 KV cache a second graph over that data."""
        weights, config = self._weights, self._checkpoint.config
        weights.store = self._store
        if self._options.budget is not None:  # before the work, as far as that can be said
            check_budget(self._options.budget, self._disk_bytes())
        found = self._calibrate(progress) if self._options.calibrates else None
        divergence = None
        if found and self._options.budget is not None:
            self._model = build_graph(config, weights)  # with the channels that are kept apart
            pages = 2 * _PAGE * len(found.moves)  # weights and scales of each linear begin one
            room = check_budget(self._options.budget, self._disk_bytes() + pages)
            weights.kinds = choose(found.moves, self._shapes(found), most=0.0, room=room)
        if found and self._options.max_kl is not None:
            divergence = self._keep_promise(folder, found, self._options.max_kl, progress)
        else:
            self._save(folder, progress)
        precision = _describe(weights, self._calibration(), divergence, gptq=self._options.gptq)
        if self._options.kv_cache == "float32" or found is None:
            return Written({"float32": MODEL}, precision)
        stored = StoredWeights(weights, ir.load(folder / MODEL))
        ir.save(build_graph(config, stored, found.scales), folder / MODEL_KV_INT8)
        return Written({"float32": MODEL, "int8": MODEL_KV_INT8}, precision)

    def _keep_promise(
        self, folder: Path, found: Calibrated, most: float, progress: Progress
    ) -> float:
        """Write bundles until one diverges no more than `most` on the calibration text.

        Gives the divergence. What linears move adds up, and the divergence grows with the sum;
        each try says how fast. Raises CheckpointError when not even float32 linears are enough.
        """
        config, weights, shapes = self._checkpoint.config, self._weights, self._shapes(found)
        windows = cut_windows(config, self._ids())
        least = math.inf
        allowed = math.inf  # of what all linears may move together
        while True:
            kinds = choose(found.moves, shapes, most=allowed)
            weights.kinds = kinds
            self._save(folder, progress)
            divergence = kl_to_float32(weights, found.hidden, windows, folder / MODEL)
            if divergence <= most:
                return divergence
            least = min(least, divergence)
            moved = sum(found.moves[name].get(kind, 0.0) for name, kind in kinds.items())
            if moved == 0:
                raise CheckpointError(
                    "A divergence of {asked:g} cannot be kept: with all linears in float32 it is "
                    "{least:.2g}, from the embedding.",
                    asked=most,
                    least=least,
                )
            allowed = _MARGIN * moved * most / divergence
            for name in (MODEL, DATA):
                (folder / name).unlink()

    def _shapes(self, found: Calibrated) -> dict[str, tuple[int, int]]:
        return {name: self._weights.linear_shape(f"{name}.weight") for name in found.moves}

    def _save(self, folder: Path, progress: Progress) -> None:
        """Write the graph over the weights as they are to be now."""
        self._weights.forget()
        self._model = build_graph(self._checkpoint.config, self._weights)
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

    def _calibrate(self, progress: Progress) -> Calibrated:
        """Fit the weights to the text, and find the scales of the KV cache."""
        config, total = self._checkpoint.config, self._total()
        return calibrate(
            self._weights,
            self._ids(),
            error=product_error(self._weights.precision),
            gptq=self._options.gptq,
            progress=lambda layer: progress("calibrate", layer * total // config.n_layer, total),
        )

    def _ids(self) -> list[int]:
        config, tokenizer = self._checkpoint.config, self._checkpoint.tokenizer.open()
        return calibration_ids(config, tokenizer, self._template, self._text, windows=self._windows)

    @property
    def _windows(self) -> int:
        return MANY if self._options.gptq else FEW

    def _calibration(self) -> str:
        """Which text was used, so that the same export can be made again."""
        if not self._options.calibrates:
            return ""
        path = self._options.calibrate
        name = f"text {path.name}" if path else "shipped text"
        digest = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        return f"{name} (sha256 {digest}), up to {self._windows} windows of {WINDOW} tokens"

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


def _describe(
    weights: CheckpointWeights, calibration: str, divergence: float | None, *, gptq: bool
) -> PrecisionInfo:
    if weights.precision == "float32":
        linears = embedding = "float32"
    else:
        embedding = f"8-bit blocks of {EMBEDDING_BLOCK}"
        linears = {
            "int8": "int8 weights per output channel, activations quantized row by row",
            "int4": f"4-bit symmetric blocks of {weights.block}" + (", GPTQ" if gptq else ""),
            "mixed": describe(weights.kinds),
        }[weights.precision]
    if weights.num_kept_apart:
        linears += f"; {weights.num_kept_apart} channels in float32"
    if divergence is not None:
        linears += f"; KL divergence {divergence:.2g} on the calibration text"
    return PrecisionInfo(
        name=weights.precision,
        linears=linears,
        embedding=embedding,
        head=embedding,
        calibration=calibration,
        by_linear=dict(weights.kinds),
    )
