"""Compares written graphs with the float32 network on the windows that nothing was fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.export.lazy import CheckpointWeights
from issun.export.weights import Array
from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.decoding.distributions import log_softmax, row_kl
from issun.runtime.weights.session import open_session

_ROWS = 4096  # of the head at a time; it is the largest tensor


class Reference:
    """The float32 logits of windows of ids, in a file, since a large vocabulary needs gigabytes."""

    def __init__(
        self, weights: CheckpointWeights, hidden: Array, windows: NDArray[np.int64], file: Path
    ) -> None:
        """`hidden` is the float32 output of the last block, (window, position, n_embd)."""
        self._architecture = weights.network.architecture()
        self._windows = windows
        shape = (*windows.shape, weights.network.vocab_size)
        self._logits = np.memmap(file, np.float32, "w+", shape=shape)
        for number, states in enumerate(hidden):
            self._logits[number] = _head(weights, states)

    def kl(self, graph: Path, *, windows: int | None = None) -> float:
        """The mean KL divergence of a graph's next-token distributions from float32, in nats.

        With `windows`, only that many of the windows are read.
        """
        decoder = IssunDecoder(open_session(graph), self._architecture)
        cache = decoder.new_cache()
        total, rows = 0.0, 0
        for ids, logits in zip(self._windows[:windows], self._logits, strict=False):
            cache.rewind(0)
            start = 0
            for chunk in decoder.score(cache, ids.tolist()):
                exact = log_softmax(logits[start : start + len(chunk)])
                total += float(row_kl(exact, log_softmax(chunk)).sum())
                start += len(chunk)
            rows += start
        cache.close()
        return total / rows


def _head(weights: CheckpointWeights, states: Array) -> Array:
    """float32 logits of (position, n_embd) states."""
    normed = _norm(weights, states)
    return np.concatenate(
        [normed @ rows.T for rows in weights.head_rows(_ROWS)], axis=-1, dtype=np.float32
    )


def _norm(weights: CheckpointWeights, states: Array) -> Array:
    """The network's last norm."""
    network = weights.network
    if network.norm == "layer":
        states = states - states.mean(axis=-1, keepdims=True)
    size = np.sqrt(np.square(states).mean(axis=-1, keepdims=True) + np.float32(network.epsilon))
    normed: Array = states / size * weights.read("norm.weight")
    return normed + weights.read("norm.bias") if weights.has("norm.bias") else normed
