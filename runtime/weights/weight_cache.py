"""The cache of packed weights: one entry per bundle, CPU and version of ONNX Runtime."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import onnxruntime as ort
import platformdirs
from filelock import FileLock, Timeout

from issun.runtime.errors import BundleError, IssunError, Notify, OutOfMemoryError
from issun.runtime.files import has_valid_checksum, reason_of, user_path
from issun.runtime.manifest import Manifest, sha256_of
from issun.runtime.weights.lease import Lease
from issun.runtime.weights.low_rank import LowRank
from issun.runtime.weights.packing import Packed, open_packed, pack
from issun.runtime.weights.pages import FilePages, track_mappings
from issun.runtime.weights.session import (
    integer_matmul_saturates,
    open_session,
    rounds_activations,
)

CACHE_VARIABLE = "ISSUN_CACHE"  # another folder; empty: no cache
MAX_CACHE_BYTES = 16 * 10**9  # of all entries; the least recently used ones are removed
MIN_BUNDLE_BYTES = 64 * 10**6  # smaller bundles are packed faster than looked up

_INDEX, _DATA, _PARTIAL = "index.json", "packed.data", ".partial"
_NAME = re.compile(r"[0-9a-f]{32}(\.partial)?")
_MAX_INDEX = 1 << 20
# Disk space needed for packing, as a multiple of the bundle's size: ONNX Runtime saves originals
# and packed weights, which are then copied.
_DISK_FACTOR = 3.5
_DISK_FULL_BYTES = 1 << 20  # bytes: a disk with less free space is full


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The packed weights of one bundle; the index is written last and marks a complete entry."""

    key: str
    bundle: str  # the path of the bundle
    packed: Packed


class WeightCache:
    """Entries in one folder, which only its owner may write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(
        self,
        graph: Path,
        manifest: Manifest,
        *,
        threads: int | None,
        notify: Notify,
        low_rank: LowRank | None = None,
    ) -> tuple[ort.InferenceSession, Path | None]:
        """Return a session over `graph`, and the folder of the entry that it maps, if any.

        `notify` is called when weights are packed, which takes a while, and if they cannot be
        cached.
        """
        try:
            entry = self._find_or_pack(graph, manifest, threads, notify)
            session = entry and self._open_entry(entry, graph, threads, low_rank)
            if entry and session:
                return session, self.folder / entry.key
            if entry:
                self._remove(entry.key)
                notify("Removed damaged packed weights from {path}.", path=self.folder)
        except (OSError, ValueError, BundleError, OutOfMemoryError) as error:
            notify("Packed weights are not used: {reason}", reason=reason_of(error))
        return open_session(graph, threads=threads, low_rank=low_rank), None

    def _open_entry(
        self, entry: Entry, graph: Path, threads: int | None, low_rank: LowRank | None
    ) -> ort.InferenceSession | None:
        """Return a session over the entry's weights; None if they do not match graph and CPU."""
        folder = self.folder / entry.key
        with suppress(OSError):  # a read-only folder
            os.utime(folder / _INDEX)  # mark as recently used
        lease = Lease(folder / _DATA)  # until the file is watched
        try:
            data = folder / _DATA
            return open_packed(graph, entry.packed, data, threads=threads, low_rank=low_rank)
        except BundleError:
            return None
        finally:
            lease.release()

    def entries(self) -> list[Entry]:
        """Return all complete entries, most recently used first."""
        if not self.folder.is_dir():
            return []
        found = [(path, entry) for path in self.folder.iterdir() if (entry := _read_entry(path))]
        found.sort(key=lambda pair: -(pair[0] / _INDEX).stat().st_mtime)
        return [entry for _, entry in found]

    def find(self, manifest: Manifest) -> Path | None:
        """Return the folder of a bundle's entry if it is complete."""
        entry = _read_entry(self.folder / _key(manifest))
        return self.folder / entry.key if entry else None

    def size_of(self, key: str) -> int:
        """Return the bytes of an entry, including its prompt cache."""
        size = 0
        with suppress(FileNotFoundError):  # another process renames or removes files
            for file in (self.folder / key).iterdir():
                size += file.stat().st_size
        return size

    def clear(self) -> int:
        """Remove all entries and the remains of killed processes; return the bytes freed.

        Raises IssunError if the system does not allow it.
        """
        freed = 0
        for path in self._entry_folders():
            freed += self.size_of(path.name)
            try:
                while path.is_dir():
                    with suppress(FileNotFoundError):  # another process renames or removes files
                        _delete(path)
            except OSError as error:
                raise IssunError(
                    "{path} cannot be removed: {reason}", path=path, reason=reason_of(error)
                ) from error
        return freed

    def damaged(self) -> Iterator[Entry]:
        """Yield entries that have a file whose content differs from what was written."""
        for entry in self.entries():
            folder = self.folder / entry.key
            sound = sha256_of(folder / _DATA) == entry.packed.sha256
            if not sound or not all(map(has_valid_checksum, folder.glob("*.kv"))):
                yield entry

    def _find_or_pack(
        self, graph: Path, manifest: Manifest, threads: int | None, notify: Notify
    ) -> Entry | None:
        key = _key(manifest)
        self._create_folder()
        entry = _read_entry(self.folder / key)
        if entry is not None:
            return entry
        if manifest.size > MAX_CACHE_BYTES:
            notify(
                "Packed weights are not cached: they exceed the cache's limit of {limit:,} MB.",
                limit=MAX_CACHE_BYTES // 10**6,
            )
            return None
        needed = _DISK_FACTOR * manifest.size
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            notify(
                "Packed weights are not cached: packing needs {needed:,} MB of disk space "
                "temporarily, and {free:,} MB are free.",
                needed=int(needed / 1e6),
                free=free // 10**6,
            )
            return None
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                # Another process may have packed them before the lock was free.
                return _read_entry(self.folder / key) or self._create(key, graph, threads, notify)
        except Timeout:  # another process is packing, and this one need not wait
            return None

    def _create(self, key: str, graph: Path, threads: int | None, notify: Notify) -> Entry:
        for left in self.folder.glob(f"*{_PARTIAL}"):  # only the lock's holder writes
            shutil.rmtree(left)
        self._remove(key)  # a damaged entry; before the work, in case it is in use
        notify("Packing the weights for this CPU; later starts skip this …")
        folder = self.folder / (key + _PARTIAL)
        folder.mkdir(mode=0o700)
        try:
            packed = self._pack(graph, folder / _DATA, threads)
            if os.name == "posix":  # writing to the file would change weights in use
                with suppress(OSError):  # some file systems have no modes
                    (folder / _DATA).chmod(0o400)
            entry = Entry(key=key, bundle=str(graph.parent), packed=packed)
            (folder / _INDEX).write_bytes(msgspec.json.encode(entry))
            self._evict(packed.size)
            folder.rename(self.folder / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return entry

    def _pack(self, graph: Path, data: Path, threads: int | None) -> Packed:
        try:
            return pack(graph, data, threads=threads)
        except BundleError as error:  # ONNX Runtime does not report a full disk as such
            if shutil.disk_usage(data.parent).free < _DISK_FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    def _evict(self, size: int) -> None:
        kept = 0
        for entry in self.entries():
            kept += self.size_of(entry.key)
            if kept + size > MAX_CACHE_BYTES:
                with suppress(OSError):  # in use on Windows: it is evicted another time
                    self._remove(entry.key)

    def _remove(self, key: str) -> None:
        """Remove an entry, if there is one; raises OSError if it is in use on Windows."""
        with suppress(FileNotFoundError):
            _delete(self.folder / key)

    def _create_folder(self) -> None:
        """Create the folder; raises PermissionError if others could write to it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            found = self.folder.stat()
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise PermissionError(f"{self.folder} can be written by others")

    def _entry_folders(self) -> Iterator[Path]:
        """Yield the folders that this class created, complete or not, and no other files."""
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if _NAME.fullmatch(path.name) and path.is_dir():
                yield path


def open_weights(
    graph: Path,
    manifest: Manifest,
    cache: WeightCache | None,
    *,
    threads: int | None,
    notify: Notify,
    low_rank: LowRank | None = None,
) -> tuple[ort.InferenceSession, FilePages, Path | None]:
    """Return a session over `graph`, its file mappings, and the cache entry it maps, if any.

    `low_rank` adds the products of adapters to the graph. The weights are mapped from `cache` if
    the bundle is large enough. Pages of the bundle itself are dropped: loading reads all of it,
    while inference only reads a few rows of the embedding.
    """
    graph, entry = graph.resolve(), None
    files = {graph.with_name(name) for name in manifest.files}
    with track_mappings(files) as pages:
        pages.watch(files)
        if cache is None or not is_packed(manifest):
            session = open_session(graph, threads=threads, low_rank=low_rank)
        else:
            session, entry = cache.open(
                graph, manifest, threads=threads, notify=notify, low_rank=low_rank
            )
            pages.watch([entry / _DATA] if entry else [])
    pages.drop()
    return session, pages, entry


def is_packed(manifest: Manifest) -> bool:
    """Return whether the weights of a bundle are packed into a cache, if there is one."""
    return manifest.graph == "issun" and manifest.size >= MIN_BUNDLE_BYTES


def default_cache() -> WeightCache | None:
    """Return the user's cache, or the one that ISSUN_CACHE names; None if that is empty."""
    named = os.environ.get(CACHE_VARIABLE)
    if named is None:
        return WeightCache(platformdirs.user_cache_path("issun") / "weights")
    return WeightCache(user_path(named).resolve()) if named.strip() else None


def _delete(folder: Path) -> None:
    """Remove an entry's folder; nothing of it if Windows has its weights mapped."""
    (folder / _DATA).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _key(manifest: Manifest) -> str:
    parts = (
        manifest.bundle_id,
        ort.__version__,
        cpu_description(),
        "reduced range" if integer_matmul_saturates() else "False",
        *([] if rounds_activations() else ["split head"]),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def cpu_description(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return a description that differs between CPUs; ONNX Runtime also checks packed weights."""
    described = [platform.machine()]
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
        described.append(platform.processor())  # on Linux this would start a process
    # Arm has no model name, and boards with the same features may differ in their parts.
    for name in ("model name", "flags", "Features", "CPU implementer", "CPU part"):
        described += dict.fromkeys(line for line in lines if line.startswith(name))
    return "\n".join(described)


def _read_entry(folder: Path) -> Entry | None:
    """Return the entry in `folder` if it is complete."""
    index, data = folder / _INDEX, folder / _DATA
    try:
        if index.stat().st_size > _MAX_INDEX:
            return None
        entry = msgspec.json.decode(index.read_bytes(), type=Entry)
        complete = entry.key == folder.name and entry.packed.size == data.stat().st_size
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return entry if complete else None
