"""What a written graph says beside the float32 pass that its weights were fitted by."""

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

_ROWS = 4096  # of the embedding, which is the largest tensor


def kl_to_float32(
    weights: CheckpointWeights, hidden: Array, windows: NDArray[np.int64], graph: Path
) -> float:
    """The mean KL divergence of a graph's distributions from float32's, in nats.

    `hidden` is what float32's last block gives for the (window, position) ids.
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
