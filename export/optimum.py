"""The reference route: exported by Optimum, quantized by ONNX Runtime's own tool."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from issun.export.checkpoint import Checkpoint
from issun.export.errors import CheckpointError, MissingExtraError
from issun.export.options import ExportOptions, Progress, Written
from issun.export.torch_model import load_torch
from issun.runtime.manifest import Precision

MODEL, DATA = "model.onnx", "model.onnx.data"

_NEEDED = ("torch", "transformers", "onnx", "optimum.exporters.onnx")
_INLINE_BYTES = 4096  # smaller tensors stay in the graph's own file
_PAGE = 4096


class OptimumRoute:
    """Exports with Optimum to a temporary folder, and writes the result in issun's layout."""

    def __init__(self, checkpoint: Checkpoint, options: ExportOptions) -> None:
        """Raises MissingExtraError if torch, transformers or Optimum is not installed."""
        if not all(map(_is_installed, _NEEDED)):
            raise MissingExtraError(
                "--via optimum needs torch, transformers and optimum-onnx: `pip install "
                '"issun[optimum]"`.'
            )
        self._checkpoint, self._precision = checkpoint, options.precision

    def disk_bytes(self) -> int:
        """Twice the float32 weights: Optimum's files exist until the bundle is written."""
        return 2 * self._float32_bytes()

    def write(self, folder: Path, progress: Progress) -> Written:
        """Write `model.onnx` and its data; raises CheckpointError if Optimum fails."""
        with TemporaryDirectory(dir=folder, prefix="optimum.") as work:
            try:
                with _quiet():
                    path = self._export(Path(work), progress)
            except (CheckpointError, OSError):
                raise
            except Exception as error:  # torch and Optimum raise errors of many types
                raise CheckpointError(
                    "Optimum cannot export {folder}: {reason}",
                    folder=self._checkpoint.folder,
                    reason=" ".join(str(error).split())[:200] or type(error).__name__,
                ) from error
            _lay_out(ir.load(path), folder, progress)
        return Written({"float32": MODEL}, _describe(self._precision))

    def _export(self, work: Path, progress: Progress) -> Path:
        """Export to `work` in the requested precision; returns the graph file."""
        total = self._float32_bytes()
        progress("optimum", 0, total)
        path = self._export_float32(work)
        if self._precision == "int8":
            progress("optimum", total // 2, total)
            path = _quantize(path)
        progress("optimum", total, total)
        return path

    def _export_float32(self, work: Path) -> Path:
        import torch  # noqa: PLC0415
        from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()
        model = load_torch(self._checkpoint)
        # If accelerate is installed, Optimum merges a tied head with the embedding, and the
        # quantizer then skips the head.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        # Optimum loads a tokenizer from this path, which may fail: an empty folder has none.
        model.config._name_or_path = str(work)
        onnx_export_from_model(
            model.eval(), work / "float32", task="text-generation-with-past", do_validation=False
        )
        return work / "float32" / MODEL

    def _float32_bytes(self) -> int:
        network = self._checkpoint.network
        sizes = [math.prod(tensor.shape) for tensor in self._checkpoint.stored.values()]
        # Optimum's graph has its own copy of a tied head.
        head = network.vocab_size * network.n_embd if network.tie_word_embeddings else 0
        return 4 * (sum(sizes) + head)


def _quantize(path: Path) -> Path:
    """Dynamic int8 with one scale per output channel; raises CheckpointError if a Gemm remains.

    The embedding stays float32, because the tool supports only one scale for the whole table.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    quantized = path.with_name("int8.onnx")
    quantize_dynamic(
        path,
        quantized,
        # torch exports GPT-2's Conv1D as Gemm, so a list of MatMul alone would skip them.
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    left = [node.name for node in ir.load(quantized).graph if node.op_type == "Gemm"]
    if left:
        raise CheckpointError(
            "ONNX Runtime's quantizer left {count} linear layers in float32: {names}.",
            count=len(left),
            names=", ".join(map(str, left[:8])),
        )
    return quantized


def _lay_out(model: ir.Model, folder: Path, progress: Progress) -> None:
    """Write the graph and one data file to `folder`, one tensor at a time."""
    # Both tools also store constants in their data files; onnx_ir rewrites initializers only.
    LiftConstantsToInitializersPass(size_limit=0)(model)
    weights = [v.const_value for v in model.graph.initializers.values() if v.const_value]
    total, done = sum(tensor.nbytes for tensor in weights), 0

    def report(tensor: ir.TensorProtocol, _: object) -> None:
        nonlocal done
        progress("write", done, total)
        done += tensor.nbytes

    ir.save(
        model,
        folder / MODEL,
        external_data=DATA,
        size_threshold_bytes=_INLINE_BYTES,
        callback=report,
        alignment=_PAGE,
        align_threshold=0,
    )
    progress("write", total, total)


def _describe(precision: str) -> Precision:
    if precision == "float32":
        return Precision(name="float32", linears="float32", embedding="float32", head="float32")
    linears = "int8 weights per output channel, activations quantized call by call"
    return Precision(name="int8", linears=linears, embedding="float32", head=linears)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # a parent package is missing
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the notices of torch and Optimum, and redirect their output to standard error."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
