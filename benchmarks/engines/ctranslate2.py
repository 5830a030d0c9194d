"""CTranslate2 with int8 weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from issun.benchmarks.engines.base import Engine


class CTranslate2Int8(Engine):
    """CTranslate2's generator; `tokens` are those of the last `generate`, for tests to compare."""

    label = "CTranslate2 int8"
    packages = ("ctranslate2", "torch", "transformers")
    settings = (
        "`TransformersConverter` with `quantization=int8` and a made-up vocabulary (it has no "
        "unigram one for GPT-2); `Generator(compute_type=int8).generate_tokens`, greedy."
    )
    tokens: list[int]
    _generator: Any

    def convert(self) -> None:
        """Convert and quantize with its own converter."""
        from ctranslate2.converters import TransformersConverter  # noqa: PLC0415

        from issun.export.config import read_config  # noqa: PLC0415

        vocabulary = _Vocabulary(read_config(self.checkpoint).vocab_size)
        converter = TransformersConverter(str(self.checkpoint), low_cpu_mem_usage=True)
        # The checkpoint's own has fewer tokens than the embedding has rows, which is refused.
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
        """Take tokens of its stream as they come; the cache is new with each."""
        self.tokens = []
        for step in self._generator.generate_tokens(
            [str(token) for token in ids],
            max_length=count,
            min_length=count,
            sampling_topk=1,
            end_token=[],  # the default would never be drawn, rather than not end
        ):
            self.tokens.append(step.token_id)
            yield


class _Vocabulary:
    """What the converter asks of a tokenizer, each token named by its id."""

    bos_token, eos_token, unk_token = "0", "1", "2"

    def __init__(self, size: int) -> None:
        self._size = size

    def get_vocab(self) -> dict[str, int]:
        return {str(token): token for token in range(self._size)}
