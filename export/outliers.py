"""Finds outlier channels: a few so large that quantization would lose all the others.

They are searched for in the inputs of the MLP's down projection, after smoothing, and multiplied in
float32. No smoothing factor can pass through an activation function, so that outlier channels may
be the only remedy there. A gated MLP can be smoothed, and outlier channels help in few layers.
Source: Dettmers et al., "LLM.int8()" (2022); Sun et al., "Massive activations" (2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from issun.export.kinds import Kind
from issun.export.smoothing import Loss, sample
from issun.export.weights import Array

COUNTS = (1, 2, 4, 8, 16)
_MAX_LOSS = 0.5  # relative to no outliers; a smaller gain is not worth a float32 product per token
# In a gated MLP 16 channels halve the error of most layers. But on a trained Llama the KL
# divergence fell only where they saved at least a tenth of the precision's whole error.
GATED_GAIN: dict[Kind, float] = {"int8": 3e-5, "int4": 5e-4}
_TOLERANCE = 1.1  # the smallest count whose loss is within this factor of the best is taken


def find_outlier_channels(
    inputs: Array, weight: Array, output: Array, loss: Loss, *, min_gain: float | None = None
) -> NDArray[np.int64] | None:
    """Outlier channels of `inputs` (rows, in) for `weight` (in, out); None if none are worth it.

    `output` (rows, out) is the block's output, to which the product is added. Channels must lower
    the relative energy of its error by `min_gain`, or halve it if that is None.
    """
    order = np.argsort(-np.abs(inputs).max(axis=0), kind="stable")
    size = np.linalg.norm(output, axis=-1, keepdims=True)  # it scales a row's error as well
    rows, columns = sample(inputs / np.maximum(size, np.float32(1e-12)), weight)
    found: list[tuple[float, NDArray[np.int64]]] = []
    for count in COUNTS:
        channels = np.sort(order[:count]).astype(np.int64)
        inliers, rest = rows.copy(), columns.copy()
        inliers[:, channels], rest[channels] = 0, 0
        found.append((loss(inliers, rest), channels))
    least = min(value for value, _ in found)
    without = loss(rows, columns)
    most = _MAX_LOSS * without
    if min_gain is not None:
        most = without - min_gain * len(rows) * columns.shape[1] / weight.shape[1]
    if not least <= most:  # `not`, since NaN compares as False
        return None
    return next(channels for value, channels in found if value <= _TOLERANCE * least)
