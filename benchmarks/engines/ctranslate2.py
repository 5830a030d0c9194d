"""CTranslate2 with int8 weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from issun.benchmarks.engines.base import Engine


class CTranslate2Int8(Engine):
    """CTranslate2's generator; `tokens` are those of the last `generate`, for tests."""

    label = "CTranslate2 int8"
    packages = ("ctranslate2", "torch", "transformers")
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

        vocabulary = _Vocabulary(read_config(self.checkpoint).vocab_size)
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


class _Vocabulary:
    """A tokenizer for the converter, with ids as tokens."""

    bos_token, eos_token, unk_token = "0", "1", "2"

    def __init__(self, size: int) -> None:
        self._size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(self._size)}
