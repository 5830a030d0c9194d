"""What every prompt of a template begins with: computed once, kept beside the packed weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from issun.runtime.errors import OutOfMemoryError
from issun.runtime.kv_cache import Cache, KVCache
from issun.runtime.kv_file import read_kv, write_kv
from issun.runtime.manifest import Manifest

_LEAST = 8  # tokens; fewer are read nearly as fast as a file


class Preambles:
    """Keys and values of a bundle's `beginnings`, which hold nothing that a user has written.

    A prompt whose beginning is not in a file yet is cut behind it when it is read, so that it has
    the same logits either way: attention and int4 round a row by where it stands in a chunk.
    Files that cannot be written are not, without a word: they save the time of a few tokens.
    """

    def __init__(self, folder: Path, computed_by: str, beginnings: Sequence[list[int]]) -> None:
        """Keep files in `folder`; only those of the same `computed_by` are read again."""
        self._folder, self._computed_by = folder, computed_by
        self._beginnings = [ids for ids in beginnings if len(ids) >= _LEAST]

    def fill(self, cache: Cache, prompt: Sequence[int]) -> int:
        """Let an empty `cache` hold what `prompt` begins with, where that was kept.

        Where it was not, gives how many ids are to be read by themselves, and then to `keep`.
        """
        known = self._beginning(prompt)
        if not known or cache.ids[0] or not isinstance(cache, KVCache):
            return 0
        path = self._path(cache, known)
        try:
            found = read_kv(path, cache, self._computed_by)
        except OutOfMemoryError:  # reading the prompt tells it
            return 0
        if found and found.ids == known:
            return 0
        cache.rewind(0)
        with suppress(OSError):
            path.unlink(missing_ok=True)  # damaged, or of other ids: it is written anew
        return len(known)

    def keep(self, cache: Cache) -> None:
        """Write what `cache` begins with, which was read by itself."""
        known = self._beginning(cache.ids[0])
        if not known or not isinstance(cache, KVCache):
            return
        path = self._path(cache, known)
        partial = path.with_name(path.name + ".partial")
        with suppress(OSError, Timeout), FileLock(self._folder / ".lock", timeout=0):
            partial.unlink(missing_ok=True)  # a killed process's
            write_kv(partial, cache, len(known), self._computed_by)
            partial.replace(path)

    def _beginning(self, ids: Sequence[int]) -> list[int]:
        """The one of the beginnings that `ids` have, and at least one id more."""
        fitting = (known for known in self._beginnings if len(known) < len(ids))
        return next((known for known in fitting if known == list(ids[: len(known)])), [])

    def _path(self, cache: KVCache, known: list[int]) -> Path:
        return self._folder / f"preamble-{self._beginnings.index(known)}-{cache.dtype}.kv"


def state_of_files(folder: Path, manifest: Manifest) -> str:
    """What changes whenever a file of the bundle in `folder` is replaced, written to or restored.

    The manifest's id alone is the same for a damaged bundle and for the repaired one. The change
    time (ctime) cannot be set back.
    """
    digest = hashlib.sha256(manifest.bundle_id.encode())
    for name in sorted(manifest.files):
        found = (folder / name).stat()
        state = (name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(repr(state).encode())
    return digest.hexdigest()[:32]
