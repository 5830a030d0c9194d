"""ids -> logits: one session, and the KV caches that it fills."""

from __future__ import annotations

import mmap
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.errors import ContextError, OutOfMemoryError, ParameterError
from issun.runtime.manifest import Architecture, KVCacheType
from issun.runtime.memory_left import take
from issun.runtime.pages import FilePages
from issun.runtime.prefix import common_prefix
from issun.runtime.session import is_out_of_memory

Logits = NDArray[np.float32]

PREFILL_CHUNK = 128  # measured: 559 tok/s in chunks of 128 against 528 in one call of 512
_TABLE = 16 << 20  # bytes: of what is mapped, only the embedding's table is as large
_AT_ONCE = 2 << 20  # bytes asked for at least: several steps', as asking takes a tenth of a ms


class Cache:
    """The tokens that the model has read, one sequence a slot, with their keys and values."""

    positions = sys.maxsize  # tokens that a slot has room for, where that is less than the context

    def __init__(self, slots: int) -> None:
        self.ids: list[list[int]] = [[] for _ in range(slots)]

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values, as far as a kind of cache knows."""
        return 0

    def close(self) -> None:
        """Give the memory back; the cache cannot be used after."""
        self.ids = []

    def rewind(self, length: int, slot: int = 0) -> None:
        """Forget all tokens of `slot` from position `length` on."""
        held = self.ids[slot]
        if not 0 <= length <= len(held):
            raise ParameterError(
                "Cannot rewind to {length}: the cache holds {held} tokens.",
                length=length,
                held=len(held),
            )
        del held[length:]

    def shrink(self) -> None:
        """Give back the memory of what was forgotten, where a kind of cache holds it."""

    def keep_common_prefix(self, ids: Sequence[int], slot: int = 0) -> int:
        """Rewind `slot` to what it shares with `ids`, and say how many tokens these are.

        At least the last id is left to be read again, since its logits are not kept.
        """
        shared = min(common_prefix(self.ids[slot], ids), len(ids) - 1)
        self.rewind(shared, slot)
        return shared


class Decoder(ABC):
    """A graph that continues token sequences; `forward` is all that its kinds differ in."""

    kv_cache: KVCacheType = "float32"

    def __init__(self, session: ort.InferenceSession, architecture: Architecture) -> None:
        self.session = session
        self.pages = FilePages()  # who loads the session says what it maps
        self.n_positions = architecture.n_positions
        self.vocab_size = architecture.vocab_size

    @abstractmethod
    def new_cache(self, slots: int = 1) -> Cache:
        """An empty cache for `slots` sequences."""

    @abstractmethod
    def forward(self, cache: Cache, chunks: Sequence[Sequence[int]], rows: Sequence[int]) -> Logits:
        """Read one chunk of ids a slot, in the first slots, and give the logits of `rows`.

        Every chunk has at least one id. `rows` count in the chunks padded to the longest and laid
        one behind the other. Gives (len(rows), vocab_size) float32. Raises
        ContextError past the context and ParameterError for an id or a row out of range, both
        before anything is computed.
        """

    def prefill(self, cache: Cache, ids: Sequence[int]) -> Logits:
        """Read `ids` behind what `cache` (one slot) holds; gives the last (vocab_size,) logits."""
        self._check(cache, [ids], [])
        *chunks, last = cut(ids)
        for chunk in chunks:
            self.forward(cache, [chunk], [])
        logits: Logits = self.forward(cache, [last], [len(last) - 1])[0]
        return logits

    def step(self, cache: Cache, token: int) -> Logits:
        """Read one id behind what `cache` (one slot) holds; gives (vocab_size,) logits."""
        logits: Logits = self.forward(cache, [[token]], [0])[0]
        return logits

    def score(self, cache: Cache, ids: Sequence[int]) -> Iterator[Logits]:
        """Read `ids` and give the logits of every position, (chunk, vocab_size) at a time."""
        self._check(cache, [ids], [])
        for chunk in cut(ids):
            yield self.forward(cache, [chunk], range(len(chunk)))

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise ParameterError unless `ids` are one or more ids of the model."""
        if not ids:
            raise ParameterError("There is nothing to read: the list of ids is empty.")
        for token in ids:
            if not isinstance(token, Integral) or not 0 <= token < self.vocab_size:
                raise ParameterError(
                    "The id {id!r} is out of range: the model has the ids 0 to {last}.",
                    id=token,
                    last=self.vocab_size - 1,
                )

    def _check_room(self, cache: Cache, chunks: Sequence[Sequence[int]], first: int) -> None:
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
        # The graph itself answers ids and rows out of range with wrong numbers, silently.
        for chunk in chunks:
            self.check_ids(chunk)
        self._check_room(cache, chunks, first)
        num_rows = len(chunks) * max(map(len, chunks))
        for row in rows:
            if not 0 <= row < num_rows:
                raise ParameterError(
                    "The logits row {row} is out of range: there are the rows 0 to {last}.",
                    row=row,
                    last=num_rows - 1,
                )


def cut(ids: Sequence[int], most: int = PREFILL_CHUNK) -> Iterator[Sequence[int]]:
    """Cut ids into prefill chunks of at most `most`; none but a lone id has one row.

    Attention takes another kernel for one row, so a last chunk of one row would make the result
    depend on how a prompt is cut.
    """
    start, end = 0, len(ids)
    while start < end:
        size = min(most, end - start)
        if end - start == most + 1:
            size -= 1
        yield ids[start : start + size]
        start += size


class KVCache(Cache):
    """Buffers that the graph's past and present share: nothing is copied, a rewind is a number.

    Memory is taken as it is used: the pages of a buffer exist once a token is written to them.
    """

    def __init__(
        self, session: ort.InferenceSession, architecture: Architecture, slots: int, positions: int
    ) -> None:
        super().__init__(slots)
        self.positions = positions
        # A chunk is written at its padded length, so there must be room for one past the end.
        capacity = positions + PREFILL_CHUNK
        self._names = [
            i.name for i in session.get_inputs() if i.name.startswith("past_key_values.")
        ]
        self.dtype = np.dtype(kv_cache_type(session))
        # (layers x 2, slots, head, position, head_dim)
        shape = (len(self._names), slots, architecture.n_head, capacity, architecture.kv_head_dim)
        self._memory = _untouched_zeros(int(np.prod(shape)) * self.dtype.itemsize)
        self.buffers = np.frombuffer(self._memory, self.dtype).reshape(shape)
        self.touched = [0] * slots  # positions of each slot that have memory already
        self._granted = 0  # bytes that were asked for and are not taken yet
        self.binding = session.io_binding()
        self._bound = range(0)

    @property
    def nbytes(self) -> int:
        """Memory of all positions that were ever written to and not given back."""
        return sum(self.touched) * self._position_bytes

    @property
    def _position_bytes(self) -> int:
        return self.buffers[:, 0, :, 0].nbytes

    def ask(self, positions: Mapping[int, int], beside: int = 0) -> None:
        """Raise MemoryError where the system has no room for so many positions of each slot.

        What has memory already needs none; `beside` is what else will be taken, in bytes.
        """
        new = sum(max(0, count - self.touched[slot]) for slot, count in positions.items())
        size = new * self._position_bytes + beside
        if size > self._granted:
            arrays, _, heads, *_ = self.buffers.shape
            self._granted = 0
            take(max(size, _AT_ONCE) + arrays * heads * mmap.PAGESIZE)  # pages that are begun
            self._granted = max(size, _AT_ONCE)
        self._granted -= size

    def bind(self, slots: range) -> ort.IOBinding:
        """The binding of `slots`, a batch of as many sequences."""
        if slots != self._bound:
            for name, buffer in zip(self._names, self.buffers, strict=True):
                part = buffer[slots.start : slots.stop]
                place = ("cpu", 0, self.dtype, part.shape, part.ctypes.data)
                self.binding.bind_input(name, *place)
                self.binding.bind_output(name.replace("past_key_values", "present"), *place)
            self._bound = slots
        return self.binding

    def copy(self, source: KVCache, source_slot: int, slot: int, length: int | None = None) -> None:
        """Make `slot` hold the first `length` tokens (default: all) of `source_slot` of `source`.

        `source` is this cache, or one like it. Raises OutOfMemoryError before anything has changed.
        """
        ids = source.ids[source_slot][:length]
        held = len(ids)
        with memory_for(held):
            self.ask({slot: held})
        self.ids[slot] = ids
        for buffer, other in zip(self.buffers, source.buffers, strict=True):
            # All layers at once numpy would copy twice, since it cannot tell that no two overlap.
            buffer[slot, :, :held] = other[source_slot, :, :held]
        self.touched[slot] = max(self.touched[slot], held)

    def move(self, source: int, slot: int) -> None:
        """Make `slot` hold what `source` does, which then holds nothing and has no memory.

        A layer at a time, so that it works where no memory is left.
        """
        held = len(self.ids[source])
        for layer, buffer in enumerate(self.buffers):
            buffer[slot, :, :held] = buffer[source, :, :held]
            self._give_back(layer, source, 0)
        self.ids[slot], self.ids[source] = self.ids[source], []
        self.touched[slot] = max(self.touched[slot], held)
        self.touched[source] = 0

    def shrink(self) -> None:
        """Give back the memory of what was forgotten; only Linux takes single pages back."""
        for slot, held in enumerate(self.ids):
            for layer in range(len(self.buffers)):
                self._give_back(layer, slot, len(held))
        self.touched = [len(held) for held in self.ids]

    def _give_back(self, layer: int, slot: int, held: int) -> None:
        """The memory of a slot behind `held` positions in a layer, where the system can."""
        if sys.platform != "linux":
            return
        row = self.buffers[0, 0, 0].nbytes  # of one head
        width = row // self.buffers.shape[3]
        for head in range(self.buffers.shape[2]):
            start = row * int(np.ravel_multi_index((layer, slot, head), self.buffers.shape[:3]))
            first = -(-(start + held * width) // mmap.PAGESIZE) * mmap.PAGESIZE
            last = (start + row) // mmap.PAGESIZE * mmap.PAGESIZE
            if first < last:
                self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)

    def clipped(self, slot: int = 0) -> tuple[int, int]:
        """How many keys and values of `slot` lie at an end of int8's range, and how many it has."""
        held = cast(NDArray[np.int8], self.buffers[:, slot, :, : len(self.ids[slot])])
        return int(np.count_nonzero((held == 127) | (held <= -127))), held.size

    def close(self) -> None:
        """Give the buffers back, and the session that the binding holds."""
        super().close()
        del self.binding, self.buffers, self._memory


class IssunDecoder(Decoder):
    """The graph that issun exports: shared buffers, ragged batches, logits of chosen rows."""

    def __init__(self, session: ort.InferenceSession, architecture: Architecture) -> None:
        super().__init__(session, architecture)
        self.kv_cache = kv_cache_type(session)
        self._architecture = architecture
        self._most_rows = 0  # ONNX Runtime keeps the memory of the largest chunk so far

    @property
    def slot_bytes(self) -> int:
        """Memory of one sequence's keys and values when it fills the context."""
        return self._token_bytes * (self.n_positions + PREFILL_CHUNK)

    @property
    def _token_bytes(self) -> int:
        """Memory of one token's keys and values."""
        shape = self._architecture
        width = 2 * shape.n_layer * shape.n_head * shape.kv_head_dim
        return width * np.dtype(self.kv_cache).itemsize

    @property
    def _working_bytes(self) -> int:
        """About what a token takes while it is read: a block's activations, which are float32."""
        shape = self._architecture
        return 4 * (7 * shape.n_embd + 2 * shape.n_inner)

    def new_cache(self, slots: int = 1, positions: int | None = None) -> KVCache:
        """An empty cache for `slots` sequences of up to `positions` tokens (default: all)."""
        positions = positions or self.n_positions
        with memory_for(slots * positions):
            return KVCache(self.session, self._architecture, slots, positions)

    def forward(
        self,
        cache: Cache,
        chunks: Sequence[Sequence[int]],
        rows: Sequence[int],
        *,
        first: int = 0,
    ) -> Logits:
        """Read one chunk a slot, from the slot `first` on; see `Decoder.forward`."""
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
        with memory_for(int(lengths.sum())):
            self._ask_for_memory(cache, range(first, first + len(chunks)), shape[1])
            logits = np.empty((len(rows), self.vocab_size), np.float32)
        totals = past + lengths
        feeds = {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "seqlens_k": totals - 1,
            "query_seqlens": lengths,
            "total_sequence_length": np.array(totals.max(), np.int32),
            "logit_rows": np.array(rows, np.int64),
        }
        binding = cache.bind(range(first, first + len(chunks)))
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        with memory_for(int(lengths.sum())), self.pages.unchanged():
            self.session.run_with_iobinding(binding)
        if lengths.max() > 1:  # a few rows were read, and with each a whole piece of the file
            self.pages.drop(_TABLE)
        for slot, chunk in enumerate(chunks, first):
            cache.touched[slot] = max(cache.touched[slot], len(cache.ids[slot]) + shape[1])
            cache.ids[slot].extend(chunk)
        self._most_rows = max(self._most_rows, input_ids.size)
        return logits

    def _ask_for_memory(self, cache: KVCache, slots: range, rows: int) -> None:
        """Raise MemoryError where the system has no room for `rows` new rows in each of `slots`."""
        more_rows = max(0, len(slots) * rows - self._most_rows)
        positions = {slot: len(cache.ids[slot]) + rows for slot in slots}
        cache.ask(positions, more_rows * self._working_bytes)


@contextmanager
def memory_for(tokens: int) -> Iterator[None]:
    """Raise OutOfMemoryError for a failed allocation; other errors pass."""
    try:
        yield
    except Exception as error:  # ONNX Runtime's errors share no base class
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            "There is not enough memory for {tokens:,} more tokens: close other programs, or take "
            "a smaller precision or a shorter context.",
            tokens=tokens,
        ) from error


def kv_cache_type(session: ort.InferenceSession) -> KVCacheType:
    """What keys and values are kept as in a graph of issun's."""
    return "int8" if session.get_inputs()[-1].type == "tensor(int8)" else "float32"


def _untouched_zeros(size: int) -> mmap.mmap:
    """Bytes of zero whose pages are taken from the system at their first use, 4 KiB at a time.

    numpy.zeros asks the kernel for huge pages, with which a few tokens take all of the memory.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return pages
