"""transformers on torch, the baseline for users of the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.engines.greedy import GreedyEngine

_HOW = (
    "`AutoModelForCausalLM.from_pretrained(dtype=torch.{})`, SDPA attention, "
    "`torch.inference_mode`, a `DynamicCache`, `logits_to_keep=1`; not compiled."
)


class _Torch(GreedyEngine):
    """The unconverted checkpoint in a data type."""

    packages = ("torch", "transformers")
    dtype: ClassVar[str]
    _model: Any
    _past: Any

    def convert(self) -> None:
        """Nothing to do: the checkpoint is loaded directly."""

    def load(self, threads: int) -> None:
        """Load the checkpoint."""
        import torch  # noqa: PLC0415
        from transformers import AutoModelForCausalLM  # noqa: PLC0415

        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(
            self.checkpoint,
            dtype=getattr(torch, self.dtype),
            attn_implementation="sdpa",
            local_files_only=True,
        ).eval()

    def reset(self) -> None:
        """Start with a new cache."""
        from transformers import DynamicCache  # noqa: PLC0415

        self._past = DynamicCache()

    def next_token(self, ids: Sequence[int]) -> int:
        """One forward pass."""
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            output = self._model(
                torch.tensor([ids]), past_key_values=self._past, use_cache=True, logits_to_keep=1
            )
            return int(output.logits[0, -1].argmax())

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """One forward pass without a cache."""
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            return np.array(self._model(torch.tensor([ids])).logits[0].float())

    def weights(self) -> list[Path]:
        """The checkpoint's weight files."""
        safe = sorted(self.checkpoint.glob("*.safetensors"))
        return safe or sorted(self.checkpoint.glob("pytorch_model*.bin"))


class TorchFloat32(_Torch):
    """Float32, the baseline."""

    label, dtype = "torch float32", "float32"
    settings = _HOW.format(dtype)


class TorchBFloat16(_Torch):
    """bfloat16, with half the memory."""

    label, dtype = "torch bfloat16", "bfloat16"
    settings = _HOW.format(dtype)
