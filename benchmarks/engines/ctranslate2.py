"""CTranslate2 with int8 weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.engines.base import Engine


class CTranslate2Int8(Engine):
    """CTranslate2's generator; `tokens` are those of the last `generate`, for tests."""

    label = "CTranslate2 int8"
    packages = ("ctranslate2", "torch", "transformers")
    families = ("gpt2",)
    settings = (
        "`TransformersConverter` with `quantization=int8` and a dummy vocabulary (it does not "
        "support unigram for GPT-2); `Generator(compute_type=int8).generate_tokens`, greedy."
    )
    tokens: list[int]
    _generator: Any

    def convert(self) -> None:
        """Convert and quantize with CTranslate2's converter."""
        from ctranslate2.converters import TransformersConverter  # noqa: PLC0415

        from issun.export.config import read_config  # noqa: PLC0415

        vocabulary = _Vocabulary(read_config(self.checkpoint)[1].vocab_size)
        converter = TransformersConverter(str(self.checkpoint), low_cpu_mem_usage=True)
        # CTranslate2 refuses a vocabulary that is smaller than the embedding.
        converter.load_tokenizer = lambda *_, **__: vocabulary
        converter.convert(str(self.folder / "model"), quantization="int8")

    def load(self, threads: int) -> None:
        """Load the converted model."""
        import ctranslate2  # noqa: PLC0415

        self._generator = ctranslate2.Generator(
            str(self.folder / "model"),
            device="cpu",
            compute_type="int8",
            inter_threads=1,
            intra_threads=threads,
        )

    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        """Stream tokens from `generate_tokens`, which starts with a new cache."""
        self.tokens = []
        for step in self._generator.generate_tokens(
            [str(token) for token in ids],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            end_token=[],  # the default end token would be banned until `min_length`
        ):
            self.tokens.append(step.token_id)
            yield

    def model_files(self) -> list[Path]:
        """The weights; configuration and vocabulary are files of their own."""
        return [self.folder / "model" / "model.bin"]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """One forward pass, as a batch of one."""
        found = self._generator.forward_batch([[str(token) for token in ids]])
        logits: NDArray[np.float32] = np.array(found, np.float32)[0]
        return logits


class _Vocabulary:
    """A tokenizer for the converter, with ids as tokens."""

    bos_token, eos_token, unk_token = "0", "1", "2"

    def __init__(self, size: int) -> None:
        self._size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(self._size)}
