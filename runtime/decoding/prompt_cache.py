"""Prompt cache: keys and values of a template's constant prefixes, stored on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from issun.runtime.decoding.kv_cache import Cache, KVCache
from issun.runtime.decoding.kv_file import read_kv, write_kv
from issun.runtime.errors import OutOfMemoryError
from issun.runtime.manifest import Manifest

_MIN_TOKENS = 8  # tokens; a shorter prefix is computed nearly as fast as it is loaded


class PromptCache:
    """Stored keys and values of a bundle's template prefixes, which contain no user text.

    If a prompt's prefix is not stored yet, it is prefilled as a separate chunk, because attention
    and int4 round a row by its position in a chunk: the logits are then the same with and without
    the file. Errors on writing are ignored: a file only saves the time of a few tokens.
    """

    def __init__(self, folder: Path, fingerprint: str, prefixes: Sequence[list[int]]) -> None:
        """Use files in `folder` that have the fingerprint `fingerprint`; ignore others."""
        self._folder, self._fingerprint = folder, fingerprint
        self._prefixes = [ids for ids in prefixes if len(ids) >= _MIN_TOKENS]

    def load(self, cache: Cache, prompt: Sequence[int]) -> int:
        """Load the prefix of `prompt` into an empty `cache` if it is stored.

        Otherwise return how many ids to prefill as a separate chunk before calling `store`.
        """
        prefix = self._prefix_of(prompt)
        if not prefix or cache.ids[0] or not isinstance(cache, KVCache):
            return 0
        path = self._path(cache, prefix)
        try:
            found = read_kv(path, cache, self._fingerprint)
        except OutOfMemoryError:  # the prefill will report it
            return 0
        if found and found.ids == prefix:
            return 0
        cache.rewind(0)
        with suppress(OSError):
            path.unlink(missing_ok=True)  # damaged or of other ids: it will be rewritten
        return len(prefix)

    def store(self, cache: Cache) -> None:
        """Store the prefix in `cache`, which was prefilled as a separate chunk."""
        prefix = self._prefix_of(cache.ids[0])
        if not prefix or not isinstance(cache, KVCache):
            return
        path = self._path(cache, prefix)
        partial = path.with_name(path.name + ".partial")
        with suppress(OSError, Timeout), FileLock(self._folder / ".lock", timeout=0):
            partial.unlink(missing_ok=True)  # left by a killed process
            write_kv(partial, cache, len(prefix), self._fingerprint)
            partial.replace(path)

    def _prefix_of(self, ids: Sequence[int]) -> list[int]:
        """Return the template prefix that `ids` start with and exceed, or an empty list."""
        candidates = (prefix for prefix in self._prefixes if len(prefix) < len(ids))
        return next((prefix for prefix in candidates if prefix == list(ids[: len(prefix)])), [])

    def _path(self, cache: KVCache, prefix: list[int]) -> Path:
        return self._folder / f"preamble-{self._prefixes.index(prefix)}-{cache.dtype}.kv"


def bundle_fingerprint(folder: Path, manifest: Manifest) -> str:
    """Return a fingerprint that changes when a file of the bundle is replaced or modified.

    The manifest's id alone is the same for a damaged bundle and the repaired one. The ctime also
    reveals files whose mtime was restored.
    """
    digest = hashlib.sha256(manifest.bundle_id.encode())
    for name in sorted(manifest.files):
        found = (folder / name).stat()
        state = (name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        digest.update(repr(state).encode())
    return digest.hexdigest()[:32]
