"""The reference's logits in a file, so that one model is in memory at a time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.divergence import Logits, Vector, losses_of
from issun.benchmarks.errors import BenchError
from issun.runtime.distributions import log_softmax
from issun.runtime.manifest import Architecture

TOP = 1024  # likeliest tokens kept of each position where the disk does not hold all
_ROWS = 64  # at a time in float64


class Reference:
    """Logits of positions, added in order and read back.

    All are kept as they are, float32. Where that takes more than half of the free disk space, the
    likeliest 1,024 tokens of each position are kept with their log-probabilities, and the rest as
    the logarithm of its mass. Raises BenchError where that takes too much too.
    """

    def __init__(self, path: Path, positions: int, architecture: Architecture) -> None:
        self.vocab_size = architecture.vocab_size
        free = shutil.disk_usage(path.parent).free // 2
        whole, short = 4 * positions * self.vocab_size, positions * (8 * TOP + 4)
        self.top = None if whole <= free or self.vocab_size <= TOP else TOP
        if (short if self.top else whole) > free:
            raise BenchError(
                "The reference's logits take {needed:,} MB, and {free:,} MB may be used: take a "
                "shorter text.",
                needed=(short if self.top else whole) // 10**6,
                free=free // 10**6,
            )
        self._path = path
        self.positions = 0
        self._likeliest: list[NDArray[np.int64]] = []
        self._losses: list[Vector] = []
        path.touch()

    def likeliest(self) -> NDArray[np.int64]:
        """The likeliest id of each position."""
        return np.concatenate(self._likeliest)

    def losses(self) -> Vector:
        """The negative log-likelihood of each token that another stands before in its window."""
        return np.concatenate(self._losses)

    def add(self, window: Sequence[int], logits: Logits) -> None:
        """Take the logits of the next window's positions: (len(window), vocab)."""
        self._likeliest.append(logits.argmax(axis=-1))
        with self._path.open("ab") as file:
            for start in range(0, len(window), _ROWS):
                part = logits[start : start + _ROWS]
                rows = log_softmax(part)
                self._losses.append(losses_of(rows, window[start + 1 : start + 1 + len(rows)]))
                file.write((self._shortened(rows) if self.top else part).tobytes())
        self.positions += len(window)

    def read(self, start: int, rows: Vector) -> tuple[Vector, Vector]:
        """The reference's log-probabilities behind position `start`, and those of `rows`.

        Both over all tokens, or over the likeliest ones of the reference and the rest as one.
        """
        if not self.top:
            size = rows.size
            kept = np.fromfile(
                self._path, np.float32, size, offset=4 * start * self.vocab_size
            ).reshape(rows.shape)
            return log_softmax(kept), rows
        record = self._record()
        found = np.fromfile(self._path, record, len(rows), offset=start * record.itemsize)
        own = np.take_along_axis(rows, found["ids"].astype(np.int64), axis=-1)
        first = np.column_stack([found["logs"], found["rest"]]).astype(np.float64)
        return first, np.column_stack([own, _rest(own)])

    def _record(self) -> np.dtype[np.void]:
        return np.dtype(
            [("ids", np.int32, self.top), ("logs", np.float32, self.top), ("rest", np.float32)]
        )

    def _shortened(self, rows: Vector) -> NDArray[np.void]:
        ids = np.argpartition(-rows, TOP, axis=-1)[:, :TOP]
        kept = np.take_along_axis(rows, ids, axis=-1)
        found = np.empty(len(rows), self._record())
        found["ids"], found["logs"], found["rest"] = ids, kept, _rest(kept)
        return found


def _rest(logs: Vector) -> Vector:
    """The logarithm of the mass that these log-probabilities leave; never quite nothing."""
    left: Vector = np.log(np.maximum(1 - np.exp(logs).sum(axis=-1), 1e-12))
    return left
