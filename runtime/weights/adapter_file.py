"""Adapter files: the matrices of one adapter, made for one bundle.

A line of JSON, then the values of the matrices in its order, as little-endian float32.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np

from issun.runtime.errors import AdapterError
from issun.runtime.files import new_file, open_regular, reason_of
from issun.runtime.manifest import Count
from issun.runtime.weights.low_rank import Array, Pair

FORMAT_VERSION = 1
_MAX_HEADER = 1 << 20
_DTYPE = np.dtype("<f4")
_MODE = 0o644  # of a new file, as of a bundle's files

Shape = tuple[Count, Count, Count]  # in, rank, out


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Describes an adapter: the id of its bundle, where it is from, and its matrices.

    `source` and `source_sha256` are the name and the hash of what it was made from; `rank` and
    `scale` are the largest of its linear layers; the matrices contain the scale. `sha256` is that
    of the values.
    """

    format: int
    bundle: str
    source: str
    source_sha256: str
    rank: Count
    scale: float
    linears: dict[str, Shape]
    sha256: str


class AdapterFile:
    """An adapter file whose header was read and checked."""

    def __init__(self, path: Path) -> None:
        """Raises AdapterError if the file is missing, damaged or newer than this issun."""
        self.path = path
        if path.is_dir():
            raise AdapterError(
                "{path} is a folder: `issun adapter BUNDLE {path} -o FILE` makes an adapter file "
                "of it.",
                path=path,
            )
        try:
            with open_regular(path) as file:
                line = file.readline(_MAX_HEADER)
                size = os.fstat(file.fileno()).st_size
            version = msgspec.json.decode(line, type=_FormatOnly).format
            if version != FORMAT_VERSION:
                raise AdapterError(
                    "{path} has format {found}; this version of issun reads format {known}.",
                    path=path,
                    found=version,
                    known=FORMAT_VERSION,
                )
            self.header = msgspec.json.decode(line, type=Header)
        except OSError as error:
            raise AdapterError(
                "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
            ) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise AdapterError(
                "{path} is not an adapter that `issun adapter` wrote.", path=path
            ) from error
        self._start = len(line)
        if size != self._start + _DTYPE.itemsize * sum(map(_count, self.header.linears.values())):
            raise self._damaged()

    def read(self) -> dict[str, Pair]:
        """Read the matrices: (in, rank) and (rank, out) by the names of the linear layers.

        Raises AdapterError if they are damaged.
        """
        digest, found = hashlib.sha256(), dict[str, Pair]()
        try:
            with open_regular(self.path) as file:
                file.seek(self._start)
                for name, (width, rank, out) in self.header.linears.items():
                    down, up = np.empty((width, rank), _DTYPE), np.empty((rank, out), _DTYPE)
                    for values in (down, up):
                        file.readinto(values.reshape(-1).view(np.uint8).data)
                        digest.update(values.data)
                    found[name] = (down, up)
        except OSError as error:
            raise AdapterError(
                "{path} cannot be read: {reason}", path=self.path, reason=reason_of(error)
            ) from error
        # A value that is not finite would spoil the rows of other adapters in the same batch.
        finite = all(np.isfinite(matrix).all() for pair in found.values() for matrix in pair)
        if digest.hexdigest() != self.header.sha256 or not finite:
            raise self._damaged()
        return found

    def _damaged(self) -> AdapterError:
        return AdapterError(
            "{path} is damaged or was not copied completely: copy it again, or make it again with "
            "`issun adapter`.",
            path=self.path,
        )


class _FormatOnly(msgspec.Struct):
    format: int


def write_adapter(
    path: Path,
    matrices: Mapping[str, Pair],
    *,
    bundle: str,
    source: str,
    source_sha256: str,
    scale: float,
) -> Header:
    """Write a new adapter file for the bundle with the id `bundle`; see `Header`.

    It appears at `path` when it is complete. Raises OSError, in particular FileExistsError.
    """
    digest = hashlib.sha256()
    for values in _values(matrices):
        digest.update(values.data)
    header = Header(
        format=FORMAT_VERSION,
        bundle=bundle,
        source=source,
        source_sha256=source_sha256,
        rank=max(down.shape[1] for down, _ in matrices.values()),
        scale=scale,
        linears={n: (*down.shape, up.shape[1]) for n, (down, up) in matrices.items()},
        sha256=digest.hexdigest(),
    )
    with new_file(path) as file:
        file.write(msgspec.json.encode(header) + b"\n")
        for values in _values(matrices):
            file.write(values.data)
    path.chmod(_MODE)
    return header


def _values(matrices: Mapping[str, Pair]) -> Iterator[Array]:
    for pair in matrices.values():
        for matrix in pair:
            yield np.ascontiguousarray(matrix, _DTYPE)


def _count(shape: Shape) -> int:
    width, rank, out = shape
    return rank * (width + out)
