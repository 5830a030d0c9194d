"""Token ids to logits: one ONNX Runtime session that fills KV caches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.decoding.adapters import Adapters
from issun.runtime.decoding.kv_cache import Cache, KVCache, kv_cache_type
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.manifest import Architecture, KVCacheType
from issun.runtime.weights.low_rank import ADAPTER_WEIGHTS
from issun.runtime.weights.memory_left import memory_for
from issun.runtime.weights.pages import FilePages
from issun.runtime.weights.session import graph_errors

Logits = NDArray[np.float32]

PREFILL_CHUNK = 128  # measured: 559 tok/s in chunks of 128 against 528 in one call of 512
_MIN_TABLE_BYTES = 16 << 20  # bytes: only the embedding table's mapping is as large


class Decoder(ABC):
    """A graph that continues token sequences; subclasses differ only in `forward`."""

    kv_cache: KVCacheType = "float32"
    row_cost: float | None = None  # see `row_cost.py`; None if drafts do not pay off

    def __init__(self, session: ort.InferenceSession, architecture: Architecture) -> None:
        self.session = session
        self.pages = FilePages()  # set by the code that opens the session
        self.n_positions = architecture.n_positions
        self.vocab_size = architecture.vocab_size

    @abstractmethod
    def new_cache(self, slots: int = 1) -> Cache:
        """Return an empty cache for `slots` sequences."""

    def release(self) -> None:
        """Stop making writers of the bundle's files wait; the decoder is no longer used."""
        self.pages.release()

    @abstractmethod
    def forward(self, cache: Cache, chunks: Sequence[Sequence[int]], rows: Sequence[int]) -> Logits:
        """Run one chunk of ids per slot, starting at the first slot; return the logits of `rows`.

        Every chunk has at least one id. `rows` index the rows of all chunks, each padded to the
        longest, one after another. Returns (len(rows), vocab_size) float32. Raises ContextError if
        the context would overflow and ParameterError for an id or a row out of range, both before
        any computation.
        """

    def prefill(self, cache: Cache, ids: Sequence[int]) -> Logits:
        """Append `ids` to `cache` (one slot); return the logits of the last one, (vocab_size,)."""
        self._check(cache, [ids], [])
        *chunks, last = split_chunks(ids)
        for chunk in chunks:
            self.forward(cache, [chunk], [])
        logits: Logits = self.forward(cache, [last], [len(last) - 1])[0]
        return logits

    def step(self, cache: Cache, token: int) -> Logits:
        """Append one id to `cache` (one slot) and return its logits, (vocab_size,)."""
        logits: Logits = self.forward(cache, [[token]], [0])[0]
        return logits

    def score(self, cache: Cache, ids: Sequence[int]) -> Iterator[Logits]:
        """Append `ids` and yield the logits of every position, (chunk, vocab_size) at a time."""
        self._check(cache, [ids], [])
        for chunk in split_chunks(ids):
            yield self.forward(cache, [chunk], range(len(chunk)))

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise ParameterError unless `ids` is a nonempty sequence of valid ids."""
        if not ids:
            raise ParameterError("The list of ids is empty.")
        for token in ids:
            if not isinstance(token, Integral) or not 0 <= token < self.vocab_size:
                raise ParameterError(
                    "The id {id!r} is out of range: the model has ids 0 to {last}.",
                    id=token,
                    last=self.vocab_size - 1,
                )

    def _check_length(self, cache: Cache, chunks: Sequence[Sequence[int]], first: int) -> None:
        limit = min(self.n_positions, cache.positions)
        for slot, chunk in enumerate(chunks, first):
            held = cache.ids[slot]
            if len(held) + len(chunk) > limit:
                raise ContextError(
                    "{tokens:,} tokens do not fit into the context of {limit:,}.",
                    tokens=len(held) + len(chunk),
                    limit=limit,
                )

    def _check(
        self,
        cache: Cache,
        chunks: Sequence[Sequence[int]],
        rows: Sequence[int],
        first: int = 0,
    ) -> None:
        # For ids and rows out of range the graph itself silently computes wrong numbers.
        for chunk in chunks:
            self.check_ids(chunk)
        self._check_length(cache, chunks, first)
        num_rows = len(chunks) * max(map(len, chunks))
        for row in rows:
            if not 0 <= row < num_rows:
                raise ParameterError(
                    "The logits row {row} is out of range: there are rows 0 to {last}.",
                    row=row,
                    last=num_rows - 1,
                )


def split_chunks(ids: Sequence[int], max_size: int = PREFILL_CHUNK) -> Iterator[Sequence[int]]:
    """Split ids into prefill chunks of at most `max_size`; only a single id becomes a 1-row chunk.

    Attention uses a different kernel for a single row, so a trailing chunk of one row would make
    the result depend on how a prompt is split.
    """
    start, end = 0, len(ids)
    while start < end:
        size = min(max_size, end - start)
        if end - start == max_size + 1:
            size -= 1
        yield ids[start : start + size]
        start += size


def kv_bytes(shape: Architecture, kv_cache: KVCacheType) -> int:
    """Return the bytes of one sequence's keys and values at full context."""
    width = 2 * shape.n_layer * shape.n_kv_head * shape.kv_head_dim
    return width * np.dtype(kv_cache).itemsize * (shape.n_positions + PREFILL_CHUNK)


class IssunDecoder(Decoder):
    """The graph that issun exports: shared buffers, ragged batches, logits of selected rows."""

    def __init__(self, session: ort.InferenceSession, architecture: Architecture) -> None:
        super().__init__(session, architecture)
        self.kv_cache = kv_cache_type(session)
        self.adapters: Adapters | None = None  # set by the code that opens them
        self._architecture = architecture
        # ONNX Runtime keeps the memory of each session's largest chunk so far.
        self._max_rows: dict[ort.InferenceSession, int] = {}

    def release(self) -> None:
        """Stop making writers of the bundle's files wait; the decoder is no longer used."""
        super().release()
        if self.adapters:
            self.adapters.pages.release()

    @property
    def slot_bytes(self) -> int:
        """Bytes of one sequence's keys and values at full context."""
        return kv_bytes(self._architecture, self.kv_cache)

    @property
    def _working_bytes(self) -> int:
        """Bytes of activations per token, at most: float32 arrays of about one block.

        That is four as wide as the block, two of queries, keys and values side by side, and four
        of the MLP's inner width; measured in every family and precision, 58 to 93 % of it is used.
        """
        shape = self._architecture
        qkv = (shape.n_head + 2 * shape.n_kv_head) * shape.kv_head_dim
        return 4 * (4 * shape.n_embd + 2 * qkv + 4 * shape.n_inner)

    def new_cache(self, slots: int = 1, positions: int | None = None) -> KVCache:
        """Return an empty cache for `slots` sequences of up to `positions` tokens each."""
        positions = positions or self.n_positions
        with memory_for(slots * positions):
            return KVCache(self.session, self._architecture, slots, positions, PREFILL_CHUNK)

    def forward(
        self,
        cache: Cache,
        chunks: Sequence[Sequence[int]],
        rows: Sequence[int],
        *,
        first: int = 0,
    ) -> Logits:
        """Run one chunk per slot, starting at slot `first`; see `Decoder.forward`."""
        if not isinstance(cache, KVCache):
            raise TypeError(type(cache))
        self._check(cache, chunks, rows, first)
        slots = cache.ids[first : first + len(chunks)]
        lengths = np.array([len(chunk) for chunk in chunks], np.int32)
        past = np.array([len(held) for held in slots], np.int32)
        shape = (len(chunks), int(lengths.max()))
        input_ids, position_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for slot, chunk in enumerate(chunks):
            input_ids[slot, : len(chunk)] = chunk
            position_ids[slot, : len(chunk)] = np.arange(past[slot], past[slot] + len(chunk))
        batch = range(first, first + len(chunks))
        chosen = [cache.adapters[slot] for slot in batch]
        adapters = self.adapters if any(chosen) else None
        session, pages = (adapters or self).session, (adapters or self).pages
        with memory_for(int(lengths.sum())):
            self._reserve_memory(session, cache, batch, shape[1])
            logits = np.empty((len(rows), self.vocab_size), np.float32)
        totals = past + lengths
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "seqlens_k": totals - 1,
            "query_seqlens": lengths,
            "total_sequence_length": np.array(totals.max(), np.int32),
            "logit_rows": np.array(rows, np.int64),
        }
        if adapters:
            feeds[ADAPTER_WEIGHTS] = adapters.weights(chosen, shape[1])
        with memory_for(int(lengths.sum())), graph_errors(), pages.unchanged():
            binding = cache.bind(session, batch)
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
            session.run_with_iobinding(binding)
        if lengths.max() > 1:  # each embedding row that was read has mapped a block of the file
            pages.drop(_MIN_TABLE_BYTES)
        for slot, chunk in enumerate(chunks, first):
            cache.touched[slot] = max(cache.touched[slot], len(cache.ids[slot]) + shape[1])
            cache.ids[slot].extend(chunk)
        self._max_rows[session] = max(self._max_rows.get(session, 0), input_ids.size)
        return logits

    def _reserve_memory(
        self, session: ort.InferenceSession, cache: KVCache, slots: range, rows: int
    ) -> None:
        """Raise MemoryError unless there is memory for `rows` new rows in each of `slots`."""
        new_rows = max(0, len(slots) * rows - self._max_rows.get(session, 0))
        positions = {slot: len(cache.ids[slot]) + rows for slot in slots}
        cache.reserve(positions, new_rows * self._working_bytes)
