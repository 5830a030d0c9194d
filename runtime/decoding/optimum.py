"""Runs graphs exported by Optimum: its input names, and a KV cache that is copied as it grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.decoding.decoder import Decoder, Logits
from issun.runtime.decoding.kv_cache import Cache
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import Architecture
from issun.runtime.weights.memory_left import memory_for
from issun.runtime.weights.session import graph_errors


class GrowingCache(Cache):
    """Keys and values of one sequence, as returned by the graph's last run."""

    def __init__(self, names: Sequence[str], n_head: int, head_dim: int) -> None:
        super().__init__(slots=1)
        empty = np.zeros((1, n_head, 0, head_dim), np.float32)
        self.past: dict[str, NDArray[np.float32]] = dict.fromkeys(names, empty)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values."""
        return sum(array.nbytes for array in self.past.values())

    def close(self) -> None:
        """Free the memory; the cache cannot be used afterwards."""
        super().close()
        self.past = {}

    def shrink(self) -> None:
        """Free the memory of tokens that were rewound."""
        self.past = {name: array.copy() for name, array in self.past.items()}

    def rewind(self, length: int, slot: int = 0) -> None:
        """Forget all tokens from position `length` on."""
        super().rewind(length, slot)
        self.past = {name: array[:, :, :length] for name, array in self.past.items()}


class OptimumDecoder(Decoder):
    """`past_key_values` in, `present` out, logits for every row; one sequence at a time."""

    def __init__(self, session: ort.InferenceSession, architecture: Architecture) -> None:
        super().__init__(session, architecture)
        self._heads = (architecture.n_head, architecture.n_embd // architecture.n_head)
        names = [i.name for i in session.get_inputs()]
        self._has_positions = "position_ids" in names  # missing in some versions' graphs
        self._past_names = [name for name in names if name.startswith("past_key_values.")]
        self._present_names = [n.replace("past_key_values", "present") for n in self._past_names]

    def new_cache(self, slots: int = 1) -> GrowingCache:
        """Return an empty cache; this kind of graph serves one sequence."""
        if slots != 1:
            raise ParameterError("An Optimum graph supports 1 slot, not {slots}.", slots=slots)
        return GrowingCache(self._past_names, *self._heads)

    def forward(self, cache: Cache, chunks: Sequence[Sequence[int]], rows: Sequence[int]) -> Logits:
        """Run one chunk; see `Decoder.forward`."""
        if not isinstance(cache, GrowingCache):
            raise TypeError(type(cache))
        self._check(cache, chunks, rows)
        held, chunk = cache.ids[0], chunks[0]
        total = len(held) + len(chunk)
        feeds = {
            "input_ids": np.array([chunk], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            **cache.past,
        }
        if self._has_positions:
            feeds["position_ids"] = np.arange(len(held), total, dtype=np.int64)[None]
        with memory_for(len(chunk)), graph_errors(), self.pages.unchanged():
            logits, *present = self.session.run(["logits", *self._present_names], feeds)
        cache.past = dict(zip(self._past_names, present, strict=True))
        held.extend(chunk)
        chosen: Logits = np.ascontiguousarray(logits[0][list(rows)])
        return chosen
