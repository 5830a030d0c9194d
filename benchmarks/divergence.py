"""Divergence between two models' next-token distributions, in nats, computed in float64.

A text is encoded as a whole, without a start token, and split into independent windows of 512
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax, row_kl

Logits = NDArray[np.float32]
Vector = NDArray[np.float64]
WINDOW = 512


def cut_windows(
    ids: Sequence[int], n_positions: int, length: int = WINDOW
) -> Iterator[Sequence[int]]:
    """Windows of `length` ids, or of the context length if that is shorter."""
    length = min(length, n_positions)
    return (ids[i : i + length] for i in range(0, len(ids), length))


def score_windows(model: Model, ids: Sequence[int]) -> Logits:
    """Logits of every position, each window scored independently: (len(ids), vocab)."""
    windows = cut_windows(ids, model.decoder.n_positions)
    return np.concatenate([model.score(window) for window in windows])


def losses_of(rows: Vector, ids: Sequence[int]) -> Vector:
    """The negative log-likelihood of each of `ids`, given rows of log-probabilities."""
    targets = np.array(ids, np.int64)
    found: Vector = -rows[np.arange(len(targets)), targets]
    return found


def mean_kl(reference: Logits, logits: Logits) -> float:
    """The mean over rows of KL(reference || logits)."""
    return float(row_kl(log_softmax(reference), log_softmax(logits)).mean())


def changed_argmax(reference: Logits, logits: Logits) -> float:
    """The share of rows whose most likely id differs."""
    return float((reference.argmax(axis=-1) != logits.argmax(axis=-1)).mean())
