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

from issun.runtime.decoder import KVCache
from issun.runtime.manifest import KVCacheType

FORMAT_VERSION = 1
_MAX_HEADER = 1 << 20


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the values belong to: the bundle, the ids that were read, (arrays, heads, head_dim)."""

    format: int
    bundle: str
    kv_cache: KVCacheType
    shape: tuple[int, int, int]
    ids: list[int]


def write_kv(path: Path, cache: KVCache, bundle: str) -> int:
    """Write what the cache's first slot holds to a new file that only its owner can read.

    Gives the bytes written. Raises OSError, and leaves no file then.
    """
    line = msgspec.json.encode(_header(cache, bundle, cache.ids[0])) + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(line)
            check = zlib.crc32(line)
            for values in _slices(cache, len(cache.ids[0])):
                file.write(values)
                check = zlib.crc32(values, check)
            file.write(check.to_bytes(4, "little"))
            return file.tell()
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read_kv(path: Path, cache: KVCache, bundle: str) -> int:
    """Fill the cache's first slot from a file of this bundle; gives how many tokens it holds.

    Where there is no such file, or it is another bundle's or damaged, the slot is left empty.
    """
    cache.rewind(0)
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_HEADER)
            found = msgspec.json.decode(line, type=Header)
            if found != _header(cache, bundle, found.ids) or len(found.ids) > cache.positions:
                return 0
            check = zlib.crc32(line)
            for values in _slices(cache, len(found.ids)):
                if file.readinto(values) != len(values):
                    return 0
                check = zlib.crc32(values, check)
            if file.read() != check.to_bytes(4, "little"):
                return 0
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return 0
    cache.ids[0] = found.ids
    return len(found.ids)


def _header(cache: KVCache, bundle: str, ids: list[int]) -> Header:
    arrays, _, heads, _, head_dim = cache.buffers.shape
    kind: KVCacheType = "int8" if cache.dtype == np.int8 else "float32"
    return Header(FORMAT_VERSION, bundle, kind, (arrays, heads, head_dim), list(ids))


def _slices(cache: KVCache, length: int) -> Iterator[memoryview]:
    """The first `length` positions of every layer's every head, each in one piece."""
    for layer in cache.buffers[:, 0]:
        for head in layer:
            yield head[:length].reshape(-1).view(np.uint8).data
