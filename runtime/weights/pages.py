"""The files that a session maps: frees their page memory and detects changes to them."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from issun.runtime.errors import BundleError
from issun.runtime.weights.lease import Lease

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")
_LOADING = threading.Lock()

Range = tuple[int, int]


class FilePages:
    """The file mappings of one session.

    Pages of the bundle can be dropped at any time and are read from the file again on access.
    Only Linux reports what is mapped where; on other systems `ranges` is empty.
    """

    def __init__(self) -> None:
        self.ranges: list[Range] = []
        self._states: dict[Path, tuple[int, int, int]] = {}
        self._leases: dict[Path, Lease] = {}

    def watch(self, files: Iterable[Path]) -> None:
        """Record the state of `files` for `unchanged`, and make their writers wait.

        A running step may need data that a writer would truncate.
        """
        for file in files:
            self._leases[file] = Lease(file)
            self._states[file] = _state(file)

    def release(self) -> None:
        """Stop making writers wait; the session is no longer used."""
        for lease in self._leases.values():
            lease.release()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raise BundleError if a watched file was written to before or during the block.

        The mapped data is then wrong, and reading past a truncated end would kill the process. A
        file that was deleted or replaced stays intact while it is mapped.
        """
        self._check()
        yield
        self._check()

    def _check(self) -> None:
        for file, before in self._states.items():
            broken = self._leases[file].broken()
            try:
                now = _state(file)
            except OSError:  # deleted
                continue
            if broken or (now != before and now[0] == before[0]):
                raise BundleError(
                    "{path} was changed while it was in use: load the model again.", path=file
                )

    def drop(self, min_bytes: int = 0) -> None:
        """Drop the pages of all mappings of at least `min_bytes` bytes."""
        chosen = [(start, end) for start, end in self.ranges if end - start >= min_bytes]
        if chosen:
            libc = ctypes.CDLL(None)
        for start, end in chosen:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


@contextmanager
def track_mappings(files: Collection[Path]) -> Iterator[FilePages]:
    """Find the mappings of `files` that were created within the block.

    Mappings of other sessions over the same files are excluded: they are unmapped when those
    sessions end, and the addresses may then be used for something else.
    """
    pages = FilePages()
    if sys.platform != "linux":
        yield pages
        return
    names = {str(file) for file in files}
    with _LOADING:
        before = [mapping for mapping, _ in _mappings(names)]
        yield pages
        for mapping, private in list(_mappings(names)):
            # A private page that was written to could not be read back from the file.
            if private == 0 and not any(_overlap(mapping, other) for other in before):
                pages.ranges.append(mapping)


def _state(file: Path) -> tuple[int, int, int]:
    """Return the inode, and the attributes that change when the file is written to."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _mappings(names: set[str]) -> Iterator[tuple[Range, int]]:
    """Yield where `names` are mapped, and how many KiB of each mapping are private copies."""
    mapping = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if found := _MAPPING.fullmatch(line):
            mapping = (int(found[1], 16), int(found[2], 16)) if found[3] in names else None
        elif mapping and line.startswith("Anonymous:"):
            yield mapping, int(line.split()[1])


def _overlap(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]
