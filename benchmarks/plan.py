"""The plan of a benchmark run, and which engines are loaded at the same time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from issun.benchmarks.engines.base import Engine
from issun.benchmarks.engines.registry import BUNDLE, engine_class

# Estimated memory of an engine: this factor of its weights, plus this many bytes.
_WEIGHT_FACTOR, _OVERHEAD_BYTES = 1.1, 500_000_000
# Rough work of loading and of decoding a token, in the time that a token of a prompt is read. They
# weigh the steps of a run against each other for the time that remains.
_LOAD_WORK, _DECODE_WORK = 200, 4


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

    def create_engine(self, checkpoint: Path | None) -> Engine:
        """The engine, not loaded yet."""
        return self.kind(checkpoint or self.folder, self.folder, self.kv_cache, trust=self.trust)

    @property
    def marks(self) -> tuple[Path, Path]:
        """Files beside the folder, of a conversion that has begun, and of a complete one."""
        begun, complete = (f"{self.folder.name}.{mark}" for mark in ("begun", "whole"))
        return self.folder.with_name(begun), self.folder.with_name(complete)

    def is_foreign(self) -> bool:
        """Whether something else than a benchmark's conversion has the folder's place."""
        made = any(mark.exists() for mark in self.marks)
        return self.engine != BUNDLE and self.folder.exists() and not made

    def remove(self) -> None:
        """Remove the conversion, unless it is a folder that no benchmark has made."""
        if self.engine == BUNDLE or self.is_foreign():
            return
        begun, complete = self.marks
        if self.folder.exists():
            begun.touch()  # an interruption leaves a part, which is ours but not complete
        complete.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.folder.exists():
            begun.unlink(missing_ok=True)

    @property
    def label(self) -> str:
        """Its label in tables."""
        return self.name if self.engine == BUNDLE else self.kind.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure; sizes are in tokens."""

    targets: list[Target]
    checkpoint: Path | None
    threads: tuple[int, ...]
    vocab_size: int
    rounds: int
    seconds: float | None  # no round starts that would end later than this
    prefills: tuple[int, ...]
    depths: tuple[int, ...]
    new_tokens: int  # decoded after each prompt
    contexts: tuple[int, ...]  # of memory tests
    turn: bool
    seed: int

    @property
    def tests(self) -> list[str]:
        """The tests of a round by name, without loads and cold prefills."""
        sizes = {"prefill": self.prefills, "decode": self.depths}
        names = [f"{kind}-{size}" for kind, found in sizes.items() for size in sorted(found)]
        return [*names, "turn"] if self.turn else names

    @property
    def round_work(self) -> int:
        """The work of an engine in a round, in the time that it reads a token of a prompt."""
        sizes = {*self.prefills, *self.depths}
        read = sum(size * (1 + (size in self.prefills)) for size in sizes)
        return _LOAD_WORK + read + _DECODE_WORK * self.new_tokens * len(self.depths)

    def memory_work(self, context: int) -> int:
        """The work of a memory test, likewise."""
        return _LOAD_WORK + context + (_DECODE_WORK - 1) * self.new_tokens


def group_by_memory(
    targets: Sequence[Target], checkpoint: Path | None, room: int
) -> list[list[Target]]:
    """Groups of targets that fit into `room` bytes together, first fit; others are alone."""

    def fits(group: list[Target]) -> bool:
        engines = [target.create_engine(checkpoint) for target in group]
        needed = (_WEIGHT_FACTOR * e.weight_bytes() + _OVERHEAD_BYTES for e in engines)
        return sum(map(int, needed)) <= room

    groups: list[list[Target]] = []
    for target in targets:
        for group in groups:
            if fits([*group, target]):
                group.append(target)
                break
        else:
            groups.append([target])
    return groups
