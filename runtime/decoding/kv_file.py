"""Saves keys and values of one sequence to a file and loads them for the same bundle.

Format: one line of JSON, the arrays as they are in memory, and the CRC-32 of both in 4 bytes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from issun.runtime.decoding.kv_cache import KVCache
from issun.runtime.files import CHECKSUM_BYTES, new_file, open_regular
from issun.runtime.manifest import KVCacheType
from issun.runtime.weights.memory_left import memory_for

FORMAT_VERSION = 1
_MAX_HEADER = 1 << 20


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes the values: their bundle, the ids, and (arrays, heads, head_dim).

    `dropped` is how many of the conversation's oldest turns are not in the ids.
    """

    format: int
    bundle: str
    kv_cache: KVCacheType
    shape: tuple[int, int, int]
    dropped: int
    ids: list[int]


def write_kv(path: Path, cache: KVCache, length: int, bundle: str, *, dropped: int = 0) -> int:
    """Write the first `length` tokens of the cache's first slot to a new private file.

    Returns the bytes written. Raises OSError and then leaves no file.
    """
    header = _header(cache, bundle, dropped, cache.ids[0][:length])
    line = msgspec.json.encode(header) + b"\n"
    with new_file(path) as file:
        file.write(line)
        checksum = zlib.crc32(line)
        for values in _slices(cache, length):
            file.write(values)
            checksum = zlib.crc32(values, checksum)
        file.write(checksum.to_bytes(CHECKSUM_BYTES, "little"))
        return file.tell()


def read_kv(path: Path, cache: KVCache, bundle: str) -> Header | None:
    """Load a file of the same bundle into the cache's first slot and return its header.

    Returns None and leaves the slot empty if the file is missing, damaged or of another bundle.
    Raises OutOfMemoryError, also with an empty slot, if there is not enough memory.
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
            if os.fstat(file.fileno()).st_size != len(line) + size + CHECKSUM_BYTES:
                return None
            with memory_for(length):
                cache.reserve({0: length})
            checksum = zlib.crc32(line)
            for values in _slices(cache, length):
                if file.readinto(values) != len(values):
                    return None
                checksum = zlib.crc32(values, checksum)
            if file.read(CHECKSUM_BYTES) != checksum.to_bytes(CHECKSUM_BYTES, "little"):
                return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    cache.ids[0] = found.ids
    cache.touched[0] = max(cache.touched[0], length)
    return found


def _header(cache: KVCache, bundle: str, dropped: int, ids: list[int]) -> Header:
    arrays, _, heads, _, head_dim = cache.buffers.shape
    kind: KVCacheType = "int8" if cache.dtype == np.int8 else "float32"
    return Header(FORMAT_VERSION, bundle, kind, (arrays, heads, head_dim), dropped, ids)


def _slices(cache: KVCache, length: int) -> Iterator[memoryview]:
    """Yield the first `length` positions of every head of every layer, each contiguous."""
    for layer in cache.buffers[:, 0]:
        for head in layer:
            yield head[:length].reshape(-1).view(np.uint8).data
