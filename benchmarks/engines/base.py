"""The interface of an engine: convert a checkpoint, load it, and generate from token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class Engine(ABC):
    """One way to run a checkpoint; its package is imported only in its methods.

    Each engine has its own process, which creates it, loads it, and runs its tests in order.
    """

    label: ClassVar[str]  # in tables and plots
    packages: ClassVar[tuple[str, ...]]  # required distributions
    families: ClassVar[tuple[str, ...]] = ()  # that it was written for; all if empty
    chunk: ClassVar[int] = 0  # prompt tokens that are computed together; 0: all
    settings: ClassVar[str]  # how it is converted and run, as a sentence for the report

    def __init__(
        self,
        checkpoint: Path,
        folder: Path,
        kv_cache: str | None = None,
        *,
        trust: bool = False,
        calibration: Path | None = None,
    ) -> None:
        """Take the checkpoint's folder, the folder of the converted model, and a KV cache type.

        `kv_cache` and `trust` apply to issun's bundles only. `calibration` is the text for engines
        that fit their weights to one; None is the text in issun's package.
        """
        self.checkpoint, self.folder = checkpoint, folder
        self.kv_cache, self.trust, self.calibration = kv_cache, trust, calibration
        self.kv_type = ""  # that of the KV cache once loaded, if known

    @abstractmethod
    def convert(self) -> None:
        """Convert the checkpoint and write the result to `folder`, which exists and is empty."""

    @abstractmethod
    def load(self, threads: int) -> None:
        """Load the converted model, ready to generate with `threads` threads."""

    @abstractmethod
    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        """Prefill `ids` into an empty cache and decode `count` tokens; yields after each token.

        Decoding is greedy and ignores end tokens. The first token comes from the logits of the
        prompt, so the time until it is the prefill time.
        """

    @abstractmethod
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each of `ids`, read into an empty cache: (len(ids), vocabulary)."""

    def weights(self) -> list[Path]:
        """The files that `load` reads its weights from."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def model_files(self) -> list[Path]:
        """The files of network and weights, without tokenizer and packed weights."""
        return self.weights()

    def matrix_types(self) -> str:
        """The types of the weight matrices and how many have each; empty if there is one type."""
        return ""

    def weight_bytes(self) -> int:
        """Bytes of weights in memory once loaded; called before `load`."""
        return sum(path.stat().st_size for path in self.weights())

    def bytes_read(self) -> tuple[int, int]:
        """Bytes that decoding a token reads: of weights, and of the KV cache per token in it.

        Zeros if unknown. Called after `load`.
        """
        return 0, 0

    def bundle_id(self) -> str:
        """An identifier of the converted model, loaded or not; empty if it has none."""
        return ""

    def describe_settings(self) -> str:
        """`settings`, with details that only the installed engine knows. Called after `load`."""
        return self.settings

    def chat_turn(self) -> dict[str, float]:
        """Seconds to the first token of a chat turn, if it supports chats. Called after `load`."""
        return {}
