"""Compares a written graph with the float32 pass over the calibration text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from issun.export.forward import layer_norm
from issun.export.lazy import CheckpointWeights
from issun.export.weights import Array
from issun.runtime.decoder import IssunDecoder
from issun.runtime.distributions import log_softmax, row_kl
from issun.runtime.session import open_session

_ROWS = 4096  # of the head at a time; it is the largest tensor


def kl_to_float32(
    weights: CheckpointWeights, hidden: Array, windows: NDArray[np.int64], graph: Path
) -> float:
    """The mean KL divergence of a graph's next-token distributions from float32, in nats.

    `hidden` is the float32 output of the last block, (window, position, n_embd), for the ids in
    `windows`, (window, position).
    """
    architecture = weights.config.architecture()
    decoder = IssunDecoder(open_session(graph), architecture)
    cache = decoder.new_cache()
    found = []
    for states, ids in zip(hidden, windows, strict=True):
        cache.rewind(0)
        exact = log_softmax(_head(weights, states))
        logits = np.concatenate(list(decoder.score(cache, ids.tolist())))
        found.append(row_kl(exact, log_softmax(logits)).mean())
    cache.close()
    return float(np.mean(found))


def _head(weights: CheckpointWeights, states: Array) -> Array:
    """float32 logits of (position, n_embd) states."""
    config = weights.config
    normed = layer_norm(
        states, weights.read("ln_f.weight"), weights.read("ln_f.bias"), config.layer_norm_epsilon
    )
    return np.concatenate(
        [normed @ rows.T for rows in weights.head_rows(_ROWS)], axis=-1, dtype=np.float32
    )
