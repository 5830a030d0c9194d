"""issun's own export route: the graph of `graph.py`, written one tensor at a time."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import onnx_ir as ir

from issun.export.calibrate import (
    NUM_WINDOWS,
    NUM_WINDOWS_GPTQ,
    WINDOW,
    Calibrated,
    calibrate,
    calibration_ids,
    cut_windows,
    read_calibration_text,
)
from issun.export.checkpoint import Checkpoint
from issun.export.errors import CheckpointError
from issun.export.gptq_store import GPTQStore
from issun.export.graph import build_graph
from issun.export.lazy import EMBEDDING_BLOCK, CheckpointWeights, Precision
from issun.export.mixed import check_budget, choose_precisions, describe
from issun.export.options import ExportOptions, Progress, Written
from issun.export.quantization_loss import product_loss
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
_SAFETY = 0.9  # the next attempt at max_kl aims at this fraction of the allowed error


class NativeRoute:
    """Quantizes a checkpoint and writes it to the bundle's data file as a stream."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ExportOptions,
        template: Template,
        store: GPTQStore | None = None,
    ) -> None:
        self._checkpoint, self._options, self._template = checkpoint, options, template
        self._store = store
        precision: Precision = "mixed" if options.mixed else options.precision
        self._weights = CheckpointWeights(checkpoint.config, checkpoint.tensors, precision)
        self._text = _calibration_text(options.calibrate)
        self._model = build_graph(checkpoint.config, self._weights)

    def disk_bytes(self) -> int:
        """Disk space that an export needs at its peak."""
        copies = 2 if self._options.gptq else 1  # GPTQ results are stored next to the target first
        return max(copies * self._disk_bytes(), self._options.budget or 0)

    def _disk_bytes(self) -> int:
        """Bytes of all tensors, each aligned to pages."""
        sizes = [v.const_value.nbytes for v in self._initializers()]
        return sum(-(-size // _PAGE) * _PAGE for size in sizes)

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write `model.onnx` and its data; for an int8 KV cache also a second graph."""
        weights, config = self._weights, self._checkpoint.config
        weights.store = self._store
        if self._options.budget is not None:  # fail early if the budget is clearly too small
            check_budget(self._options.budget, self._disk_bytes())
        calibrated = self._calibrate(progress) if self._options.calibrates else None
        divergence = None
        if calibrated and self._options.budget is not None:
            self._fit_budget(calibrated, self._options.budget)
        if calibrated and self._options.max_kl is not None:
            divergence = self._write_within(folder, calibrated, self._options.max_kl, progress)
        else:
            self._save(folder, progress)
        precision = _describe(weights, self._calibration(), divergence, gptq=self._options.gptq)
        if self._options.kv_cache == "float32" or calibrated is None:
            return Written({"float32": MODEL}, precision)
        stored = StoredWeights(weights, ir.load(folder / MODEL))
        ir.save(build_graph(config, stored, calibrated.scales), folder / MODEL_KV_INT8)
        return Written({"float32": MODEL, "int8": MODEL_KV_INT8}, precision)

    def _fit_budget(self, calibrated: Calibrated, budget: int) -> None:
        """Choose the best precisions that fit into `budget` bytes; raises CheckpointError."""
        self._model = build_graph(self._checkpoint.config, self._weights)  # with outlier channels
        # Weights and scales of each linear layer start on a new page.
        padding = 2 * _PAGE * len(calibrated.sensitivities)
        extra_bytes = check_budget(budget, self._disk_bytes() + padding)
        self._weights.kinds = choose_precisions(
            calibrated.sensitivities,
            self._shapes(calibrated),
            max_error=0.0,
            extra_bytes=extra_bytes,
        )

    def _write_within(
        self, folder: Path, calibrated: Calibrated, max_kl: float, progress: Progress
    ) -> float:
        """Write graphs until the KL divergence on the calibration text is at most `max_kl`.

        Returns that divergence. It grows with the sum of the sensitivities, so each attempt scales
        the allowed sum by how far it missed. Raises CheckpointError if float32 linear layers are
        not enough either.
        """
        config, weights, shapes = self._checkpoint.config, self._weights, self._shapes(calibrated)
        sensitivities = calibrated.sensitivities
        windows = cut_windows(config, self._ids())
        least = math.inf
        max_error = math.inf
        while True:
            kinds = choose_precisions(sensitivities, shapes, max_error=max_error)
            weights.kinds = kinds
            self._save(folder, progress)
            divergence = kl_to_float32(weights, calibrated.hidden, windows, folder / MODEL)
            if divergence <= max_kl:
                return divergence
            least = min(least, divergence)
            error = sum(sensitivities[name].get(kind, 0.0) for name, kind in kinds.items())
            if error == 0:
                raise CheckpointError(
                    "A divergence of {asked:g} is not possible: with all linear layers in float32 "
                    "it is {least:.2g}, because of the 8-bit embedding.",
                    asked=max_kl,
                    least=least,
                )
            max_error = _SAFETY * error * max_kl / divergence
            for name in (MODEL, DATA):
                (folder / name).unlink()

    def _shapes(self, calibrated: Calibrated) -> dict[str, tuple[int, int]]:
        names = calibrated.sensitivities
        return {name: self._weights.linear_shape(f"{name}.weight") for name in names}

    def _save(self, folder: Path, progress: Progress) -> None:
        """Write the graph and its data with the current precision of each linear layer."""
        self._weights.reset()
        self._model = build_graph(self._checkpoint.config, self._weights)
        total, done = self._total(), 0

        def report(tensor: ir.TensorProtocol, _: Any) -> None:
            nonlocal done
            progress("write", done, total)
            done += tensor.nbytes

        try:
            ir.save(
                self._model,
                folder / MODEL,
                external_data=DATA,
                size_threshold_bytes=_INLINE_BYTES,
                callback=report,
                max_workers=_WORKERS,
                max_in_flight_bytes=_IN_FLIGHT_BYTES,
                alignment=_PAGE,
                align_threshold=0,
            )
        except ir.serde.SerdeError as error:
            raise _root_cause(error) from error
        progress("write", total, total)

    def _calibrate(self, progress: Progress) -> Calibrated:
        """Adapt the weights to the calibration text, and find the scales of the KV cache."""
        config, total = self._checkpoint.config, self._total()
        return calibrate(
            self._weights,
            self._ids(),
            loss=product_loss(self._weights.precision),
            gptq=self._options.gptq,
            progress=lambda layer: progress("calibrate", layer * total // config.n_layer, total),
        )

    def _ids(self) -> list[int]:
        config, tokenizer = self._checkpoint.config, self._checkpoint.tokenizer.open()
        return calibration_ids(config, tokenizer, self._template, self._text, windows=self._windows)

    @property
    def _windows(self) -> int:
        return NUM_WINDOWS_GPTQ if self._options.gptq else NUM_WINDOWS

    def _calibration(self) -> str:
        """The calibration text for the manifest, so that the export can be reproduced."""
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
    """The text in `path`, or the shipped one; raises ParameterError."""
    try:
        text = read_calibration_text(path and user_path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not text.strip():
        raise ParameterError("{path} contains no text.", path=path)
    return text


def _root_cause(error: BaseException) -> BaseException:
    """The original error: onnx_ir wraps what a small tensor raises, once per level."""
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
    if weights.num_outlier_channels:
        linears += f"; {weights.num_outlier_channels} outlier channels in float32"
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
