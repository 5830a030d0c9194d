"""Finds outlier channels: a few so large that quantization would lose all the others.

The inputs of the MLP's down projection come from a nonlinear activation, so smoothing factors
cannot be moved into the layer before it. Its outlier channels are multiplied in float32 instead.
Source: Dettmers et al., "LLM.int8()" (2022); Sun et al., "Massive activations" (2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from issun.export.smoothing import Loss, sample
from issun.export.weights import Array

COUNTS = (1, 2, 4, 8, 16)
_MAX_LOSS = 0.5  # relative to no outliers; a smaller gain is not worth a float32 product per token
_TOLERANCE = 1.1  # the smallest count whose loss is within this factor of the best is taken


def find_outlier_channels(inputs: Array, weight: Array, loss: Loss) -> NDArray[np.int64] | None:
    """Outlier channels of `inputs` (rows, in) for `weight` (in, out); None if none are worth it."""
    rows, columns = sample(inputs, weight)
    order = np.argsort(-np.abs(inputs).max(axis=0), kind="stable")
    found: list[tuple[float, NDArray[np.int64]]] = []
    for count in COUNTS:
        channels = np.sort(order[:count]).astype(np.int64)
        inliers, rest = rows.copy(), columns.copy()
        inliers[:, channels], rest[channels] = 0, 0
        found.append((loss(inliers, rest), channels))
    least = min(value for value, _ in found)
    if not least <= _MAX_LOSS * loss(rows, columns):  # `not`, since NaN compares as False
        return None
    return next(channels for value, channels in found if value <= _TOLERANCE * least)
