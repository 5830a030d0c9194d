"""KV caches: their slots, and how their memory is reserved and freed."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from issun.runtime.errors import ParameterError
from issun.runtime.manifest import Architecture, KVCacheType
from issun.runtime.text.prefix import common_prefix
from issun.runtime.weights.memory_left import check_memory, memory_for

_MIN_RESERVED = 2 << 20  # bytes to reserve at least, for several steps: a check takes 0.1 ms


class Cache:
    """The tokens that the model has processed, one sequence per slot, with keys and values.

    Keys and values depend on the adapter that computed them: `adapters` names that of each slot.
    """

    positions = sys.maxsize  # tokens that fit into a slot, if fewer than the context

    def __init__(self, slots: int) -> None:
        self.ids: list[list[int]] = [[] for _ in range(slots)]
        self.adapters: list[str | None] = [None] * slots

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values; 0 if unknown."""
        return 0

    def close(self) -> None:
        """Free the memory; the cache cannot be used afterwards."""
        self.ids = []

    def rewind(self, length: int, slot: int = 0) -> None:
        """Forget all tokens of `slot` from position `length` on."""
        held = self.ids[slot]
        if not 0 <= length <= len(held):
            raise ParameterError(
                "Cannot rewind to {length}: the cache has {held} tokens.",
                length=length,
                held=len(held),
            )
        del held[length:]

    def choose_adapter(self, adapter: str | None, slot: int = 0) -> None:
        """Let `adapter` compute the tokens of `slot`; forget those that another one computed."""
        if self.adapters[slot] != adapter:
            self.rewind(0, slot)
            self.adapters[slot] = adapter

    def shrink(self) -> None:
        """Free the memory of tokens that were rewound, if there is any."""

    def keep_common_prefix(self, ids: Sequence[int], slot: int = 0) -> int:
        """Rewind `slot` to its common prefix with `ids` and return the prefix's length.

        At least the last id is left to be computed again, since its logits are not kept.
        """
        shared = min(common_prefix(self.ids[slot], ids), len(ids) - 1)
        self.rewind(shared, slot)
        return shared


class KVCache(Cache):
    """Buffers that the graph's past and present share: nothing is copied, and a rewind is free.

    Pages of the buffers are only allocated when a token is first written to them.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        architecture: Architecture,
        slots: int,
        positions: int,
        spare: int,
    ) -> None:
        super().__init__(slots)
        self.positions = positions
        # Chunks are written at their padded length, so the buffers extend past the last position.
        capacity = positions + spare
        self._names = [
            i.name for i in session.get_inputs() if i.name.startswith("past_key_values.")
        ]
        self.dtype = np.dtype(kv_cache_type(session))
        # (layers x 2, slots, head, position, head_dim)
        heads, width = architecture.n_kv_head, architecture.kv_head_dim
        shape = (len(self._names), slots, heads, capacity, width)
        self._memory = _lazy_zeros(int(np.prod(shape)) * self.dtype.itemsize)
        self.buffers = np.frombuffer(self._memory, self.dtype).reshape(shape)
        self.touched = [0] * slots  # positions of each slot whose pages are allocated
        self._reserved = 0  # bytes that were reserved and are not used yet
        self._bindings: dict[ort.InferenceSession, ort.IOBinding] = {}
        self._bound: dict[ort.InferenceSession, range] = {}  # the slots of each binding

    @property
    def nbytes(self) -> int:
        """Bytes of all positions that were written to and not freed."""
        return sum(self.touched) * self.buffers[:, 0, :, 0].nbytes

    def reserve(self, positions: Mapping[int, int], extra: int = 0) -> None:
        """Raise MemoryError unless there is memory for so many positions of each slot.

        Positions that are allocated already do not count; `extra` is other memory needed, in
        bytes.
        """
        size = extra
        for slot, count in positions.items():
            size += max(0, self._bytes(count) - self._bytes(self.touched[slot]))
        if size > self._reserved:
            self._reserved = 0
            check_memory(max(size, _MIN_RESERVED))
            self._reserved = max(size, _MIN_RESERVED)
        self._reserved -= size

    def _bytes(self, positions: int) -> int:
        """Return the bytes of a slot's first positions, in whole pages per head."""
        arrays, _, heads, _, width = self.buffers.shape
        pages = -(-positions * width * self.dtype.itemsize // mmap.PAGESIZE) + 1
        return arrays * heads * pages * mmap.PAGESIZE if positions else 0

    def bind(self, session: ort.InferenceSession, slots: range) -> ort.IOBinding:
        """Return the binding of `slots`, a batch of as many sequences, for `session`."""
        if session not in self._bindings:
            self._bindings[session] = session.io_binding()
        binding = self._bindings[session]
        if slots != self._bound.get(session):
            self._bound.pop(session, None)  # an interrupt may leave only some of them bound
            for name, buffer in zip(self._names, self.buffers, strict=True):
                part = buffer[slots.start : slots.stop]
                tensor = ("cpu", 0, self.dtype, part.shape, part.ctypes.data)
                binding.bind_input(name, *tensor)
                binding.bind_output(name.replace("past_key_values", "present"), *tensor)
            self._bound[session] = slots
        return binding

    def copy(
        self,
        source: KVCache,
        source_slot: int,
        slot: int,
        length: int | None = None,
        *,
        start: int = 0,
    ) -> None:
        """Copy the first `length` tokens (default: all) of `source_slot` of `source` to `slot`.

        `source` is this cache or one of the same shape. The first `start` tokens of the two slots
        are equal and need no copy. Raises OutOfMemoryError before any change.
        """
        ids = source.ids[source_slot][:length]
        held = len(ids)
        with memory_for(held):
            self.reserve({slot: held})
        self.ids[slot], self.adapters[slot] = ids, source.adapters[source_slot]
        for buffer, other in zip(self.buffers, source.buffers, strict=True):
            # Layer by layer: numpy would buffer a copy of all layers, as they might overlap.
            buffer[slot, :, start:held] = other[source_slot, :, start:held]
        self.touched[slot] = max(self.touched[slot], held)

    def swap(self, slot: int, other: int) -> None:
        """Exchange the contents of two slots. Raises OutOfMemoryError before any change."""
        held, others = len(self.ids[slot]), len(self.ids[other])
        with memory_for(max(held, others)):
            self.reserve({slot: others, other: held}, self.buffers[0, 0, :, :held].nbytes)
        for buffer in self.buffers:
            kept = buffer[slot, :, :held].copy()
            buffer[slot, :, :others] = buffer[other, :, :others]
            buffer[other, :, :held] = kept
        ids, adapters = self.ids, self.adapters
        ids[slot], ids[other] = ids[other], ids[slot]
        adapters[slot], adapters[other] = adapters[other], adapters[slot]
        self.touched[slot] = max(self.touched[slot], others)
        self.touched[other] = max(self.touched[other], held)

    def move(self, source: int, slot: int) -> None:
        """Move the content of the slot `source` to `slot`.

        On Linux its memory is freed layer by layer, so this works even if there is none left.
        """
        held = len(self.ids[source])
        for layer, buffer in enumerate(self.buffers):
            buffer[slot, :, :held] = buffer[source, :, :held]
            self._free_pages(layer, source, 0)
        self.ids[slot], self.ids[source] = self.ids[source], []
        self.adapters[slot] = self.adapters[source]
        self.touched[slot] = max(self.touched[slot], held)
        if sys.platform == "linux":
            self.touched[source] = 0

    def shrink(self) -> None:
        """Free the memory of tokens that were rewound; only Linux can free individual pages."""
        if sys.platform != "linux":
            return
        for slot, held in enumerate(self.ids):
            for layer in range(len(self.buffers)):
                self._free_pages(layer, slot, len(held))
        self.touched = [len(held) for held in self.ids]

    def _free_pages(self, layer: int, slot: int, held: int) -> None:
        """Free a slot's memory after `held` positions in a layer, if the system supports it."""
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
        """Return how many int8 values of `slot` are at the end of their range, and their number."""
        held = cast(NDArray[np.int8], self.buffers[:, slot, :, : len(self.ids[slot])])
        return int(np.count_nonzero((held == 127) | (held <= -127))), held.size

    def close(self) -> None:
        """Free the buffers, and the sessions that the bindings reference."""
        super().close()
        self._bound.clear()
        self._bindings.clear()
        del self.buffers, self._memory


def kv_cache_type(session: ort.InferenceSession) -> KVCacheType:
    """Return the type of keys and values in a graph exported by issun."""
    return "int8" if session.get_inputs()[-1].type == "tensor(int8)" else "float32"


def _lazy_zeros(size: int) -> mmap.mmap:
    """Return zeroed memory whose pages are allocated on first use, 4 KiB at a time.

    numpy.zeros requests huge pages, with which a few tokens would allocate all of the memory.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return pages
