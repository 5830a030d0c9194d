"""The folder of packed weights: one entry for a bundle, a CPU and a version of ONNX Runtime."""

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
from issun.runtime.files import reason_of, user_path
from issun.runtime.kv_file import is_whole
from issun.runtime.lease import Lease
from issun.runtime.manifest import Manifest, sha256_of
from issun.runtime.packing import Packed, open_packed, pack
from issun.runtime.pages import FilePages, mapped_inside
from issun.runtime.session import integer_matmul_saturates, open_session

VARIABLE = "ISSUN_CACHE"  # another folder; empty: no cache
LIMIT = 16 * 10**9  # bytes of all entries; the least recently used ones give way
LEAST = 64 * 10**6  # bytes of a bundle's files; a smaller one is packed faster than looked for

_INDEX, _DATA, _PARTIAL = "index.json", "packed.data", ".partial"
_NAME = re.compile(r"[0-9a-f]{32}(\.partial)?")
_MAX_INDEX = 1 << 20
# By the bundle's size, in bytes: saved on the way are originals and packed weights, which are then
# copied; where weights are read as unsigned bytes, those are beside them.
_ROOM, _ROOM_UNSIGNED = 3.5, 4.5
_WITH_INT8 = ("int8", "mixed")
_FULL = 1 << 20  # bytes: a disk that has no more is full


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The packed weights of one bundle; its index is written last, so what has one is whole."""

    key: str
    bundle: str  # where the bundle lay
    packed: Packed


class WeightCache:
    """Entries in one folder, which belongs to the user alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(
        self, graph: Path, manifest: Manifest, *, threads: int | None, notify: Notify
    ) -> tuple[ort.InferenceSession, Path | None]:
        """A session over `graph`, and the folder of the entry whose weights it maps, if it does.

        `notify` is told when weights are packed, which takes a while, and why they are not kept.
        """
        try:
            entry = self._entry(graph, manifest, threads, notify)
            session = entry and self._map(entry, graph, threads)
            if entry and session:
                return session, self.folder / entry.key
            if entry:
                self._remove(entry.key)
                notify("The packed weights in {path} were damaged: removed.", path=self.folder)
        except (OSError, ValueError, BundleError, OutOfMemoryError) as error:
            notify("Packed weights are not used: {reason}", reason=reason_of(error))
        return open_session(graph, threads=threads), None

    def _map(self, entry: Entry, graph: Path, threads: int | None) -> ort.InferenceSession | None:
        """A session over the entry's weights; None where they are not this graph's on this CPU."""
        folder = self.folder / entry.key
        with suppress(OSError):  # of a read-only folder
            os.utime(folder / _INDEX)  # used now
        held = Lease(folder / _DATA)  # until it is watched
        try:
            return open_packed(graph, entry.packed, folder / _DATA, threads=threads)
        except BundleError:
            return None
        finally:
            held.release()

    def entries(self) -> list[Entry]:
        """All that are whole, the most recently used one first."""
        if not self.folder.is_dir():
            return []
        found = [(path, entry) for path in self.folder.iterdir() if (entry := _read(path))]
        found.sort(key=lambda pair: -(pair[0] / _INDEX).stat().st_mtime)
        return [entry for _, entry in found]

    def size_of(self, key: str) -> int:
        """Bytes of an entry, with what is kept beside its packed weights."""
        size = 0
        with suppress(FileNotFoundError):  # another process renames or removes files
            for file in (self.folder / key).iterdir():
                size += file.stat().st_size
        return size

    def clear(self) -> int:
        """Remove all entries and what killed processes have left; gives the bytes.

        Raises IssunError where the system does not let it.
        """
        freed = 0
        for path in self._own():
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
        """Entries of which a file does not have the content that was written."""
        for entry in self.entries():
            folder = self.folder / entry.key
            sound = sha256_of(folder / _DATA) == entry.packed.sha256
            if not sound or not all(map(is_whole, folder.glob("*.kv"))):
                yield entry

    def _entry(
        self, graph: Path, manifest: Manifest, threads: int | None, notify: Notify
    ) -> Entry | None:
        key = _key(manifest)
        self._prepare()
        entry = _read(self.folder / key)
        if entry is not None:
            return entry
        if manifest.size > LIMIT:
            notify(
                "Packed weights are not kept: they are larger than the cache may be, {limit:,} MB.",
                limit=LIMIT // 10**6,
            )
            return None
        unsigned = integer_matmul_saturates() and manifest.precision.name in _WITH_INT8
        needed = (_ROOM_UNSIGNED if unsigned else _ROOM) * manifest.size
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            notify(
                "Packed weights are not kept: that takes {needed:,} MB of disk space for a while, "
                "and {free:,} MB are free.",
                needed=int(needed / 1e6),
                free=free // 10**6,
            )
            return None
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                # Another process may have packed them before the lock was free.
                return _read(self.folder / key) or self._make(key, graph, threads, notify)
        except Timeout:  # another process packs, and this one need not wait
            return None

    def _make(self, key: str, graph: Path, threads: int | None, notify: Notify) -> Entry:
        for left in self.folder.glob(f"*{_PARTIAL}"):  # nobody writes but who has the lock
            shutil.rmtree(left)
        self._remove(key)  # the remains of a damaged one; before the work, in case they are in use
        notify("Packing the weights for this CPU, which later starts need not do …")
        folder = self.folder / (key + _PARTIAL)
        folder.mkdir(mode=0o700)
        try:
            packed = self._pack(graph, folder / _DATA, threads)
            if os.name == "posix":  # whoever writes into it would change weights in use
                with suppress(OSError):  # some file systems know no modes
                    (folder / _DATA).chmod(0o400)
            entry = Entry(key=key, bundle=str(graph.parent), packed=packed)
            (folder / _INDEX).write_bytes(msgspec.json.encode(entry))
            self._make_room(packed.size)
            folder.rename(self.folder / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return entry

    def _pack(self, graph: Path, data: Path, threads: int | None) -> Packed:
        try:
            return pack(graph, data, threads=threads)
        except BundleError as error:  # ONNX Runtime has its own words for a full disk
            if shutil.disk_usage(data.parent).free < _FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    def _make_room(self, size: int) -> None:
        kept = 0
        for entry in self.entries():
            kept += self.size_of(entry.key)
            if kept + size > LIMIT:
                with suppress(OSError):  # in use on Windows: it gives way another time
                    self._remove(entry.key)

    def _remove(self, key: str) -> None:
        """Remove an entry, if there is one; raises OSError where Windows keeps it, being in use."""
        with suppress(FileNotFoundError):
            _delete(self.folder / key)

    def _prepare(self) -> None:
        """Make the folder; raises PermissionError where others could put something into it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            found = self.folder.stat()
            if found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise PermissionError(f"{self.folder} can be written by others")

    def _own(self) -> Iterator[Path]:
        """Folders that this class has made, whole or not; others' files are left alone."""
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
) -> tuple[ort.InferenceSession, FilePages, Path | None]:
    """A session over a bundle's `graph`, with mapped weights where `cache` is worth it.

    Gives the folder of the entry that these are of, too.

    What it maps of the bundle itself has been let go: loading reads all of it, answers a few rows
    of the embedding.
    """
    graph, entry = graph.resolve(), None
    files = {graph.with_name(name) for name in manifest.files}
    with mapped_inside(files) as pages:
        pages.watch(files)
        if cache is None or manifest.graph != "issun" or manifest.size < LEAST:
            session = open_session(graph, threads=threads)
        else:
            session, entry = cache.open(graph, manifest, threads=threads, notify=notify)
            pages.watch([entry / _DATA] if entry else [])
    pages.drop()
    return session, pages, entry


def default_cache() -> WeightCache | None:
    """The user's cache, or the one that ISSUN_CACHE names; None where that is empty."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return WeightCache(platformdirs.user_cache_path("issun") / "weights")
    return WeightCache(user_path(named).resolve()) if named.strip() else None


def _delete(folder: Path) -> None:
    """Remove an entry's folder: all of it, or nothing where Windows has its weights mapped."""
    (folder / _DATA).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _key(manifest: Manifest) -> str:
    parts = (manifest.bundle_id, ort.__version__, _cpu(), str(integer_matmul_saturates()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _cpu() -> str:
    """What tells CPUs apart; ONNX Runtime itself refuses what another one has packed."""
    described = [platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
        described.append(platform.processor())  # on Linux this would start a process
    for name in ("model name", "flags", "Features"):
        described += [line for line in lines if line.startswith(name)][:1]
    return "\n".join(described)


def _read(folder: Path) -> Entry | None:
    """The entry in `folder`, where there is a whole one."""
    index, data = folder / _INDEX, folder / _DATA
    try:
        if index.stat().st_size > _MAX_INDEX:
            return None
        entry = msgspec.json.decode(index.read_bytes(), type=Entry)
        whole = entry.key == folder.name and entry.packed.size == data.stat().st_size
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return entry if whole else None
