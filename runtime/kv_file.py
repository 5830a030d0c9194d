"""Keys and values of one sequence in a file, for the bundle that computed them.

One line of JSON, the arrays as they lie in memory, and the CRC-32 of all before as 4 bytes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from issun.runtime.files import new_file, open_regular
from issun.runtime.kv_cache import KVCache
from issun.runtime.manifest import KVCacheType
from issun.runtime.memory_left import memory_for

FORMAT_VERSION = 1
_MAX_HEADER = 1 << 20
_CHECK = 4  # bytes
_PART = 1 << 20  # bytes read at a time


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the values belong to: the bundle, the ids that were read, (arrays, heads, head_dim).

    `dropped` is how many of the oldest turns these ids leave out.
    """

    format: int
    bundle: str
    kv_cache: KVCacheType
    shape: tuple[int, int, int]
    dropped: int
    ids: list[int]


def write_kv(path: Path, cache: KVCache, length: int, bundle: str, *, dropped: int = 0) -> int:
    """Write the first `length` tokens of the cache's first slot to a new file of its owner's.

    Gives the bytes written. Raises OSError, and leaves no file then.
    """
    header = _header(cache, bundle, dropped, cache.ids[0][:length])
    line = msgspec.json.encode(header) + b"\n"
    with new_file(path) as file:
        file.write(line)
        check = zlib.crc32(line)
        for values in _slices(cache, length):
            file.write(values)
            check = zlib.crc32(values, check)
        file.write(check.to_bytes(_CHECK, "little"))
        return file.tell()


def read_kv(path: Path, cache: KVCache, bundle: str) -> Header | None:
    """Fill the cache's first slot from a file of this bundle; gives what it holds.

    Where there is no such file, or it is another bundle's or damaged, the slot is left empty.
    Raises OutOfMemoryError, with an empty slot, where there is no memory for what it holds.
    """
    cache.rewind(0)
    try:
        with open_regular(path) as file:
            line = file.readline(_MAX_HEADER)
            found = msgspec.json.decode(line, type=Header)
            length = len(found.ids)
            if (
                found != _header(cache, bundle, found.dropped, found.ids)
                or length > cache.positions
            ):
                return None
            size = length * cache.buffers[:, 0, :, 0].nbytes
            if os.fstat(file.fileno()).st_size != len(line) + size + _CHECK:
                return None
            with memory_for(length):
                cache.ask({0: length})
            check = zlib.crc32(line)
            for values in _slices(cache, length):
                if file.readinto(values) != len(values):
                    return None
                check = zlib.crc32(values, check)
            if file.read(_CHECK) != check.to_bytes(_CHECK, "little"):
                return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    cache.ids[0] = found.ids
    cache.touched[0] = max(cache.touched[0], length)
    return found


def is_whole(path: Path) -> bool:
    """Whether a file of keys and values has the checksum that it was written with."""
    check, held = 0, b""
    with path.open("rb") as file:
        while part := file.read(_PART):
            held += part
            check = zlib.crc32(held[:-_CHECK], check)
            held = held[-_CHECK:]
    return held == check.to_bytes(_CHECK, "little")


def _header(cache: KVCache, bundle: str, dropped: int, ids: list[int]) -> Header:
    arrays, _, heads, _, head_dim = cache.buffers.shape
    kind: KVCacheType = "int8" if cache.dtype == np.int8 else "float32"
    return Header(FORMAT_VERSION, bundle, kind, (arrays, heads, head_dim), dropped, ids)


def _slices(cache: KVCache, length: int) -> Iterator[memoryview]:
    """The first `length` positions of every layer's every head, each in one piece."""
    for layer in cache.buffers[:, 0]:
        for head in layer:
            yield head[:length].reshape(-1).view(np.uint8).data
