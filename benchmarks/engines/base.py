"""What the harness asks of an engine: convert a checkpoint, load it, read ids, go on from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar


class Engine(ABC):
    """One way to run a GPT-2 checkpoint; its own package is imported in its methods alone.

    Each lives in a process of its own, which makes it, loads it, and runs its tests one by one.
    """

    label: ClassVar[str]  # as tables and plots show it
    packages: ClassVar[tuple[str, ...]]  # distributions that it needs
    settings: ClassVar[str]  # how it is converted and run, in a sentence for the report

    def __init__(
        self, checkpoint: Path, folder: Path, kv_cache: str | None = None, *, trust: bool = False
    ) -> None:
        """Take the checkpoint's folder, the folder for what is made of it, and a KV cache type.

        Only a bundle of issun's has a choice of KV caches, and a graph that may need `trust`.
        """
        self.checkpoint, self.folder = checkpoint, folder
        self.kv_cache, self.trust = kv_cache, trust

    @abstractmethod
    def convert(self) -> None:
        """Write what is to be loaded to `folder`, which exists and is empty."""

    @abstractmethod
    def load(self, threads: int) -> None:
        """Load it, ready to answer, with `threads` threads."""

    @abstractmethod
    def generate(self, ids: Sequence[int], count: int) -> Iterator[None]:
        """Read `ids` into an empty cache and decode `count` tokens; yields when each is known.

        Greedily, and not ending before `count` whatever is drawn. The first token is that of the
        prompt's last logits, so the time to it is the prefill.
        """

    def weights(self) -> list[Path]:
        """The files that `load` reads its weights from."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def weight_bytes(self) -> int:
        """Bytes of weights that it holds once loaded; asked before."""
        return sum(path.stat().st_size for path in self.weights())

    def reads(self) -> tuple[int, int]:
        """Bytes of weights, and of cache for each token in it, that decoding a token reads.

        Zeros where that is not known. Asked of a loaded engine.
        """
        return 0, 0

    def bundle_id(self) -> str:
        """What tells one conversion from another; empty where there is no such thing."""
        return ""

    def described(self) -> str:
        """`settings`, and what only the installed engine knows. Asked when loaded."""
        return self.settings

    def turn(self) -> dict[str, float]:
        """Seconds to a chat turn's first token, where the engine has chats. Asked when loaded."""
        return {}
