"""issun's own export route: the graph of `graph.py`, written one tensor at a time."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import msgspec
import onnx_ir as ir

from issun.export.calibrate import (
    NUM_WINDOWS,
    NUM_WINDOWS_GPTQ,
    NUM_WINDOWS_HELD_OUT,
    WINDOW,
    Calibrated,
    calibrate,
    calibration_ids,
    cut_windows,
    final_states,
    read_calibration_text,
)
from issun.export.candidates import Candidates
from issun.export.checkpoint import Checkpoint
from issun.export.errors import CheckpointError
from issun.export.frontier import Frontier, Rung, open_ladder, too_small
from issun.export.gptq_store import GPTQStore
from issun.export.graph import build_graph
from issun.export.kinds import BLOCKS, EMBEDDING, KINDS, Kind, Precision, Uniform
from issun.export.lazy import CheckpointWeights
from issun.export.mixed import Mixture, describe, linear_bytes
from issun.export.options import ExportOptions, Progress, Written
from issun.export.saving import data_bytes, save_model
from issun.export.smoothing_file import write_smoothing
from issun.export.stored import StoredWeights
from issun.export.verify import Reference
from issun.runtime.errors import ParameterError
from issun.runtime.files import reason_of, user_path
from issun.runtime.manifest import AnyTemplate
from issun.runtime.manifest import Precision as PrecisionInfo

MODEL, MODEL_KV_INT8, DATA = "model.onnx", "model.kv-int8.onnx", "model.onnx.data"

# Mixed precision is smoothed for int4, whose error outlier channels increase most.
_SMOOTHED_FOR: dict[Precision, Kind] = {"int8": "int8", "int4": "int4", "mixed": "int4"}
_HELD_OUT = "on a held-out fifth of the calibration text"


class NativeRoute:
    """Quantizes a checkpoint and writes it to the bundle's data file as a stream."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ExportOptions,
        template: AnyTemplate,
        store: GPTQStore | None = None,
    ) -> None:
        self._checkpoint, self._options, self._template = checkpoint, options, template
        self._store = store
        precision: Precision = "mixed" if options.mixed else options.precision
        self._weights = CheckpointWeights(checkpoint.network, checkpoint.tensors, precision)
        self._text = chosen_text(options.calibrate)
        self._model = build_graph(checkpoint.network, self._weights)

    def disk_bytes(self) -> int:
        """Disk space that an export needs at its peak."""
        own = self._data_bytes()
        if not self._options.mixed:
            return 2 * own if self._options.fitted else own  # GPTQ stores its results first
        network, shapes = self._checkpoint.network, self._shapes()
        candidates = sum(linear_bytes(*s, kind) for s in shapes.values() for kind in KINDS)
        logits = NUM_WINDOWS_HELD_OUT * WINDOW * network.vocab_size * 4
        return 3 * own + 2 * candidates + logits

    def _data_bytes(self) -> int:
        return data_bytes(self._model)

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write `model.onnx` and its data; for an int8 KV cache also a second graph."""
        self._weights.store = self._store
        if self._options.mixed:
            return self._write_mixed(folder, progress)
        calibrated = self._calibrate(progress) if self._options.calibrates else None
        model = build_graph(self._checkpoint.network, self._weights)
        save_model(model, folder / MODEL, DATA, partial(progress, "write"))
        return self._written(folder, calibrated, self._describe())

    def _written(
        self, folder: Path, calibrated: Calibrated | None, precision: PrecisionInfo
    ) -> Written:
        """What is written, after adding the smoothing and the graph for an int8 KV cache."""
        config = self._checkpoint.folder / "config.json"
        write_smoothing(folder, config, self._weights.factors)
        if self._options.kv_cache == "float32" or calibrated is None:
            return Written({"float32": MODEL}, precision)
        stored = StoredWeights(self._weights, ir.load(folder / MODEL))
        model = build_graph(self._checkpoint.network, stored, calibrated.scales)
        ir.save(model, folder / MODEL_KV_INT8)
        return Written({"float32": MODEL, "int8": MODEL_KV_INT8}, precision)

    def _write_mixed(self, folder: Path, progress: Progress) -> Written:
        """Write the mixture or the uniform bundle that the budget or the divergence asks for."""
        budget, max_kl = self._options.budget, self._options.max_kl
        with self.frontier(folder, progress) as (frontier, calibrated, int8):
            if budget is not None:
                rung = frontier.within(budget)
            else:
                rung = frontier.closest(max_kl or 0.0)
            if rung.uniform == "int8":
                for path in (frontier.folder / "int8").iterdir():
                    path.rename(folder / path.name)
                written = int8
            elif rung.uniform:
                written = self._route(rung.uniform).write(folder, progress)
            else:
                model = frontier.candidates.build(rung.kinds)
                save_model(model, folder / MODEL, DATA, partial(progress, "write"))
                written = self._written(folder, calibrated, self._describe())
            divergence = frontier.reference.kl(folder / MODEL)
            shipped = self._kl_on_shipped_text(folder) if self._options.calibrate else None
        if max_kl is not None and divergence > max_kl:
            raise CheckpointError(
                "A divergence of {asked:g} is not possible: in float32 it is {least:.2g}.",
                asked=max_kl,
                least=divergence,
            )
        linears = f"{written.precision.linears}; KL divergence {divergence:.2g} {_HELD_OUT}"
        if shipped is not None:
            linears += f"; {shipped:.2g} on the shipped text"
        precision = msgspec.structs.replace(written.precision, linears=linears)
        return replace(written, precision=precision)

    def _kl_on_shipped_text(self, folder: Path) -> float:
        """The KL divergence on another text, which says how far the promise carries."""
        ids = self._held_out(read_calibration_text(None))
        windows = cut_windows(self._checkpoint.network, ids)
        hidden = final_states(self._weights, windows)
        with NamedTemporaryFile(dir=folder) as file:
            return Reference(self._weights, hidden, windows, Path(file.name)).kl(folder / MODEL)

    @contextmanager
    def frontier(
        self, folder: Path, progress: Progress
    ) -> Iterator[tuple[Frontier, Calibrated, Written]]:
        """All candidates, the results of calibration, and the plain int8 bundle.

        They are in the frontier's folder, which is removed at the end, the bundle in its subfolder
        `int8`. Raises CheckpointError at once if a budget is clearly too small.
        """
        weights = self._weights
        weights.store = self._store
        self._check_budget()
        calibrated = self._calibrate(progress)
        windows = cut_windows(self._checkpoint.network, self._held_out(self._text))
        work = folder / "candidates"
        work.mkdir()
        try:
            reference = Reference(weights, calibrated.held_out, windows, work / "reference")
            save = partial(save_model, progress=partial(progress, "candidates"))
            candidates = Candidates(weights, work, save)
            bundle = work / "int8"  # its smoothing is another one than that of mixtures
            bundle.mkdir()
            int8 = self._route("int8").write(bundle, progress)
            measured = partial(self._measured, progress)
            places, shapes = open_ladder(weights, candidates, reference, calibrated, measured)
            yield (
                Frontier(
                    candidates,
                    reference,
                    places,
                    shapes,
                    work,
                    int8=self._measured_int8(bundle, reference),
                    exact=self._uniform("float32", self._route("float32")._data_bytes(), 0.0),
                    progress=measured,
                ),
                calibrated,
                int8,
            )
        finally:
            shutil.rmtree(work)

    def _measured(self, progress: Progress, done: int, count: int) -> None:
        """Report `done` of `count` measurements, in bytes as the other stages."""
        progress("measure", done * self._total() // count, self._total())

    def _check_budget(self) -> None:
        """Raise CheckpointError if no mixture can be as small as the budget."""
        padding = sum(  # in 4 bits, a narrow linear's block of 128 may be larger than its 8 bits
            linear_bytes(*shape, "int4") - min(linear_bytes(*shape, kind) for kind in KINDS)
            for shape in self._shapes().values()
        )
        least = self._data_bytes() - padding
        if self._options.budget is not None and self._options.budget < least:
            raise too_small(self._options.budget, least)

    def _route(self, precision: Uniform) -> NativeRoute:
        """The export of a uniform bundle with the same text."""
        exact = (precision, self._options.kv_cache) == ("float32", "float32")
        options = replace(
            self._options,
            precision=precision,
            budget=None,
            max_kl=None,
            gptq=None,
            calibrate=None if exact else self._options.calibrate,
        )
        return NativeRoute(self._checkpoint, options, self._template)

    def _measured_int8(self, folder: Path, reference: Reference) -> Rung:
        size = sum((folder / name).stat().st_size for name in (MODEL, DATA))
        return self._uniform("int8", size, reference.kl(folder / MODEL))

    def _uniform(self, precision: Uniform, size: int, kl: float) -> Rung:
        kinds: Mixture = dict.fromkeys(self._weights.linears, precision)
        return Rung(size=size, kl=kl, kinds=kinds, uniform=precision)

    def _shapes(self) -> dict[str, tuple[int, int]]:
        names = self._weights.linears
        return {name: self._weights.linear_shape(f"{name}.weight") for name in names}

    def _calibrate(self, progress: Progress) -> Calibrated:
        """Adapt the weights to the calibration text, and find the scales of the KV cache."""
        network, total = self._checkpoint.network, self._total()
        return calibrate(
            self._weights,
            self._ids(),
            smooth_for=_SMOOTHED_FOR.get(self._weights.precision),
            gptq=self._options.fitted,
            held_out=self._held_out(self._text) if self._options.mixed else (),
            progress=lambda layers: progress(
                "calibrate", int(layers * total / network.n_layer), total
            ),
        )

    def _ids(self) -> list[int]:
        return self._cut(self._text, windows=self._windows)

    def _held_out(self, text: str) -> list[int]:
        return self._cut(text, windows=NUM_WINDOWS_HELD_OUT, held_out=True)

    def _cut(self, text: str, *, windows: int, held_out: bool = False) -> list[int]:
        network, tokenizer = self._checkpoint.network, self._checkpoint.tokenizer.open()
        return calibration_ids(
            network, tokenizer, self._template, text, windows=windows, held_out=held_out
        )

    @property
    def _windows(self) -> int:
        return NUM_WINDOWS_GPTQ if self._options.fitted else NUM_WINDOWS

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

    def _describe(self) -> PrecisionInfo:
        weights = self._weights
        exact = weights.precision == "float32"
        embedding = "float32" if exact else f"8-bit blocks of {EMBEDDING.block}"
        return PrecisionInfo(
            name=weights.precision,
            linears=_linears(weights, gptq=self._options.fitted),
            embedding=embedding,
            head=embedding,
            calibration=self._calibration(),
            by_linear=dict(weights.kinds),
        )


def chosen_text(path: Path | None) -> str:
    """The calibration text in `path`, or the shipped one; raises ParameterError."""
    try:
        text = read_calibration_text(path and user_path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not text.strip():
        raise ParameterError("{path} contains no text.", path=path)
    return text


def _linears(weights: CheckpointWeights, *, gptq: bool) -> str:
    """How the linear layers are stored, for the manifest."""
    if weights.precision == "float32":
        return "float32"
    linears = {
        "int8": "int8 weights per output channel, activations quantized row by row",
        "int4": f"4-bit symmetric blocks of {BLOCKS['int4'].block}" + (", GPTQ" if gptq else ""),
        "mixed": describe(weights.kinds),
    }[weights.precision]
    if weights.num_outlier_channels:
        linears += f"; {weights.num_outlier_channels} outlier channels in float32"
    return linears
