"""The adapters of a decoder: the session that can apply them, and each one's weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.weights.pages import FilePages


@dataclass(frozen=True, slots=True)
class Adapters:
    """A session over the bundle's weights and all adapters, and their weights by name, in order.

    Batches without an adapter run in the decoder's own session, whose speed stays what it is.
    """

    session: ort.InferenceSession
    pages: FilePages
    weight_of: Mapping[str, float]

    def weights(self, chosen: Sequence[str | None], length: int) -> NDArray[np.float32]:
        """Return the session's input for chunks of `length` tokens, one adapter or None for each.

        (chunk, token, adapter) float32: the weight of the chosen adapter, 0 for the others.
        """
        found = np.zeros((len(chosen), length, len(self.weight_of)), np.float32)
        for index, (name, weight) in enumerate(self.weight_of.items()):
            found[[one == name for one in chosen], :, index] = weight
        return found
