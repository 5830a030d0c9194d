"""Stores the reference model's logits in a file, so that only one model is in memory at a time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.benchmarks.divergence import Logits, Vector, losses_of
from issun.benchmarks.errors import BenchError
from issun.runtime.decoding.distributions import log_softmax
from issun.runtime.manifest import Architecture

TOP = 1024  # most likely tokens stored per position if disk space is short
_ROWS = 64  # processed at a time in float64


class Reference:
    """Logits of positions, added in order and read back.

    All logits are stored as float32. If that would take more than half of the free disk space, only
    the log-probabilities of the 1,024 most likely tokens per position are stored, with the
    logarithm of the remaining probability. Raises BenchError if that does not fit either.
    """

    def __init__(self, path: Path, positions: int, architecture: Architecture) -> None:
        self.vocab_size = architecture.vocab_size
        free = shutil.disk_usage(path.parent).free // 2
        whole, short = 4 * positions * self.vocab_size, positions * (8 * TOP + 4)
        self.top = None if whole <= free or self.vocab_size <= TOP else TOP
        if (short if self.top else whole) > free:
            raise BenchError(
                "The reference's logits need {needed:,} MB of disk space, but only {free:,} MB "
                "may be used: use a shorter text.",
                needed=(short if self.top else whole) // 10**6,
                free=free // 10**6,
            )
        self._path = path
        self.positions = 0
        self._argmax: list[NDArray[np.int64]] = []
        self._losses: list[Vector] = []
        path.touch()

    def argmax(self) -> NDArray[np.int64]:
        """The most likely id at each position."""
        return np.concatenate(self._argmax)

    def losses(self) -> Vector:
        """The negative log-likelihood of each token except the first of each window."""
        return np.concatenate(self._losses)

    def add(self, window: Sequence[int], logits: Logits) -> None:
        """Add the logits of the next window's positions: (len(window), vocab)."""
        self._argmax.append(logits.argmax(axis=-1))
        with self._path.open("ab") as file:
            for start in range(0, len(window), _ROWS):
                part = logits[start : start + _ROWS]
                rows = log_softmax(part)
                self._losses.append(losses_of(rows, window[start + 1 : start + 1 + len(rows)]))
                file.write((self._top_tokens(rows) if self.top else part).tobytes())
        self.positions += len(window)

    def read(self, start: int, rows: Vector) -> tuple[Vector, Vector]:
        """The reference's log-probabilities from position `start` on, and those in `rows`.

        Both are over all tokens, or over the reference's top tokens and one entry for the rest.
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

    def _top_tokens(self, rows: Vector) -> NDArray[np.void]:
        ids = np.argpartition(-rows, TOP, axis=-1)[:, :TOP]
        kept = np.take_along_axis(rows, ids, axis=-1)
        found = np.empty(len(rows), self._record())
        found["ids"], found["logs"], found["rest"] = ids, kept, _rest(kept)
        return found


def _rest(logs: Vector) -> Vector:
    """The logarithm of the probability that remains, at least 1e-12."""
    rest: Vector = np.log(np.maximum(1 - np.exp(logs).sum(axis=-1), 1e-12))
    return rest
