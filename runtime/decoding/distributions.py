"""Logits as distributions, and the divergence between two, in nats and float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log-probabilities of each row in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normed: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normed


def row_kl(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(first || second) of each row; both are log-probabilities."""
    divergence: NDArray[np.float64] = (np.exp(first) * (first - second)).sum(axis=-1)
    return divergence
