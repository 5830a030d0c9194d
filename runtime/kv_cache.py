"""Keys and values of what was read: a cache's slots, their memory, and how that is asked for."""

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
from issun.runtime.memory_left import memory_for, take
from issun.runtime.prefix import common_prefix

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


class KVCache(Cache):
    """Buffers that the graph's past and present share: nothing is copied, a rewind is a number.

    Memory is taken as it is used: the pages of a buffer exist once a token is written to them.
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
        # A chunk is written at its padded length, so there must be room for one past the end.
        capacity = positions + spare
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
        return sum(self.touched) * self.buffers[:, 0, :, 0].nbytes

    def ask(self, positions: Mapping[int, int], beside: int = 0) -> None:
        """Raise MemoryError where the system has no room for so many positions of each slot.

        What has memory already needs none; `beside` is what else will be taken, in bytes.
        """
        size = beside
        for slot, count in positions.items():
            size += max(0, self._bytes(count) - self._bytes(self.touched[slot]))
        if size > self._granted:
            self._granted = 0
            take(max(size, _AT_ONCE))
            self._granted = max(size, _AT_ONCE)
        self._granted -= size

    def _bytes(self, positions: int) -> int:
        """Memory of a slot's first positions: each head's, in whole pages."""
        arrays, _, heads, _, width = self.buffers.shape
        pages = -(-positions * width * self.dtype.itemsize // mmap.PAGESIZE) + 1
        return arrays * heads * pages * mmap.PAGESIZE if positions else 0

    def bind(self, slots: range) -> ort.IOBinding:
        """The binding of `slots`, a batch of as many sequences."""
        if slots != self._bound:
            self._bound = range(0)  # an interrupt may leave only some of them bound
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
        """Make `slot` hold what `source` does, which then holds nothing.

        Its memory is given back layer by layer (Linux), so that it works where none is left.
        """
        held = len(self.ids[source])
        for layer, buffer in enumerate(self.buffers):
            buffer[slot, :, :held] = buffer[source, :, :held]
            self._give_back(layer, source, 0)
        self.ids[slot], self.ids[source] = self.ids[source], []
        self.touched[slot] = max(self.touched[slot], held)
        if sys.platform == "linux":
            self.touched[source] = 0

    def shrink(self) -> None:
        """Give back the memory of what was forgotten; only Linux takes single pages back."""
        if sys.platform != "linux":
            return
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
