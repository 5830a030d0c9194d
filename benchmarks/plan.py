"""What is measured, and which engines are alive at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from issun.benchmarks.engines.base import Engine
from issun.benchmarks.engines.registry import BUNDLE, engine_class

_MORE, _REST = 1.1, 500_000_000  # times the weights, and bytes of all else that an engine holds


@dataclass(frozen=True, slots=True)
class Target:
    """An engine of the registry with the folder for its conversion, or a user's bundle."""

    name: str
    folder: Path
    engine: str = BUNDLE
    kv_cache: str | None = None
    trust: bool = False

    @property
    def kind(self) -> type[Engine]:
        """The engine's class."""
        return engine_class(self.engine)

    def made_from(self, checkpoint: Path | None) -> Engine:
        """The engine, not yet loaded."""
        return self.kind(checkpoint or self.folder, self.folder, self.kv_cache, trust=self.trust)

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name if self.engine == BUNDLE else self.kind.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured; sizes are in tokens."""

    targets: list[Target]
    checkpoint: Path | None
    threads: tuple[int, ...]
    vocab_size: int
    rounds: int
    prefills: tuple[int, ...]
    depths: tuple[int, ...]
    new_tokens: int
    samples: int  # of each warm test in a round
    contexts: tuple[int, ...]  # of the memory runs
    turn: bool
    steady: bool  # repeat what ran while the machine read at another speed than usual
    seed: int


def share_memory(
    targets: Sequence[Target], checkpoint: Path | None, room: int
) -> list[list[Target]]:
    """Groups that fit into `room` bytes or have one member; who is next joins the first it fits."""

    def fits(group: list[Target]) -> bool:
        engines = [target.made_from(checkpoint) for target in group]
        return sum(int(_MORE * engine.weight_bytes()) + _REST for engine in engines) <= room

    groups: list[list[Target]] = []
    for target in targets:
        for group in groups:
            if fits([*group, target]):
                group.append(target)
                break
        else:
            groups.append([target])
    return groups
