"""The site's file of weights: written once, hashed as a whole and in parts on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

PART = 16 << 20  # bytes of the weights that the browser checks and stores together
_CHUNK = 1 << 20


def write_weights(
    chunks: Iterable[bytes], path: Path, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Write `chunks` to `path`, and return the file's description in site.json, less its address.

    `progress` is called with the number of bytes that are written.
    """
    whole, parts, size = hashlib.sha256(), list[str](), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for part in _in_parts(chunks):
            file.write(part)
            whole.update(part)
            parts.append(hashlib.sha256(part).hexdigest())
            size += len(part)
            progress(size)
    return {
        "name": path.name,
        "size": size,
        "sha256": whole.hexdigest(),
        "part_size": PART,
        "parts": parts,
    }


def read_range(path: Path, offset: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes of a file, or as many as it has, from `offset` on."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while length and (chunk := file.read(min(_CHUNK, length))):
            yield chunk
            length -= len(chunk)


def _in_parts(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= PART:
            yield bytes(held[:PART])
            del held[:PART]
    if held:
        yield bytes(held)
