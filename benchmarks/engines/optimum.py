"""Optimum's own export and its ORTModelForCausalLM."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.engines.greedy import GreedyEngine

if TYPE_CHECKING:
    from issun.export.kinds import Uniform

_HOW = "`ORTModelForCausalLM` with I/O binding; its graph computes the logits of every position."


class _Optimum(GreedyEngine):
    """Exported as by `issun export --via optimum`, run with Optimum."""

    packages = ("optimum-onnx", "torch", "transformers", "onnxruntime")
    families = ("gpt2",)
    precision: ClassVar[Uniform]
    _model: Any
    _past: Any
    _length: int

    def convert(self) -> None:
        """Export with Optimum, quantize with ONNX Runtime's tool."""
        from issun.export.checkpoint import open_checkpoint  # noqa: PLC0415
        from issun.export.optimum import OptimumRoute  # noqa: PLC0415
        from issun.export.options import ExportOptions  # noqa: PLC0415

        options = ExportOptions(via="optimum", precision=self.precision)
        route = OptimumRoute(open_checkpoint(self.checkpoint), options)
        route.write(self.folder, lambda stage, done, total: None)
        shutil.copy(self.checkpoint / "config.json", self.folder)

    def load(self, threads: int) -> None:
        """Load the exported graph."""
        from onnxruntime import SessionOptions  # noqa: PLC0415
        from optimum.onnxruntime import ORTModelForCausalLM  # noqa: PLC0415

        options = SessionOptions()
        options.intra_op_num_threads = threads
        self._model = ORTModelForCausalLM.from_pretrained(
            self.folder, session_options=options, use_io_binding=True, local_files_only=True
        )

    def reset(self) -> None:
        """Discard the keys and values, which are passed from call to call."""
        self._past, self._length = None, 0

    def next_token(self, ids: Sequence[int]) -> int:
        """One call of the model."""
        return int(self._run(ids)[-1].argmax())

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """One call of the model."""
        self.reset()
        return np.array(self._run(ids))

    def _run(self, ids: Sequence[int]) -> Any:
        import torch  # noqa: PLC0415

        self._length += len(ids)
        output = self._model(
            torch.tensor([ids]),
            attention_mask=torch.ones((1, self._length), dtype=torch.int64),
            past_key_values=self._past,
            use_cache=True,
        )
        self._past = output.past_key_values
        return output.logits[0]


class OptimumFloat32(_Optimum):
    """Float32."""

    label, precision = "Optimum float32", "float32"
    settings = f"Exported by Optimum; {_HOW}"


class OptimumInt8(_Optimum):
    """Dynamic int8 with one scale per output channel."""

    label, precision = "Optimum int8", "int8"
    settings = (
        "Exported by Optimum, then `quantize_dynamic` of MatMul and Gemm with `per_channel`; the "
        f"embedding stays float32; {_HOW}"
    )
