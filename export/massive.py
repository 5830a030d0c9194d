"""Input channels so large that nothing else is left of the others once both are rounded.

What goes into the MLP's second linear comes out of an activation function, so a factor cannot be
moved past it. A few channels of it are then multiplied in float32, and the rest as ever. Source:
Dettmers et al., "LLM.int8()" (2022); Sun et al., "Massive activations" (2024).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from issun.export.smoothing import Error, sample
from issun.export.weights import Array

COUNTS = (1, 2, 4, 8, 16)
_WORTH = 0.5  # of the error must go, since the product in float32 is work for every token
_NEARLY = 1.1  # a smaller count will do where it is almost as good


def massive_channels(inputs: Array, weight: Array, error: Error) -> NDArray[np.int64] | None:
    """Channels of (rows, in) to keep apart from (in, out); None where a few help little."""
    rows, some = sample(inputs, weight)
    order = np.argsort(-np.abs(inputs).max(axis=0), kind="stable")
    found: list[tuple[float, NDArray[np.int64]]] = []
    for count in COUNTS:
        channels = np.sort(order[:count]).astype(np.int64)
        rest, left = rows.copy(), some.copy()
        rest[:, channels], left[channels] = 0, 0
        found.append((error(rest, left), channels))
    least = min(loss for loss, _ in found)
    if not least <= _WORTH * error(rows, some):  # also where the text makes no numbers
        return None
    return next(channels for loss, channels in found if loss <= _NEARLY * least)
