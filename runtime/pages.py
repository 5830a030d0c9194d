"""The files that a session maps: their memory is let go, and changes to them are noticed."""

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
from issun.runtime.lease import Lease

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")
_LOADING = threading.Lock()

Range = tuple[int, int]


class FilePages:
    """What one session maps.

    Pages of its bundle may be let go as long as the session lives, and come back when they are
    read. Linux alone tells what is mapped where; elsewhere nothing is known, and nothing is done.
    """

    def __init__(self) -> None:
        self.ranges: list[Range] = []
        self._states: dict[Path, tuple[int, int, int]] = {}
        self._leases: dict[Path, Lease] = {}

    def watch(self, files: Iterable[Path]) -> None:
        """Remember `files` as they are now, for `unchanged`, and let who would write to them wait.

        A run that is under way may need what is about to be cut off.
        """
        for file in files:
            self._leases[file] = Lease(file)
            self._states[file] = _state(file)

    def release(self) -> None:
        """Let everybody write to the files again: the session is not used any more."""
        for lease in self._leases.values():
            lease.release()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raise BundleError where a watched file was written to, before the block or in it.

        What is mapped of it is then wrong, and reading what was cut off would end the process. One
        that was deleted or replaced lives on where it is mapped.
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

    def drop(self, least: int = 0) -> None:
        """Let go of the pages of all mappings of at least so many bytes."""
        chosen = [(start, end) for start, end in self.ranges if end - start >= least]
        if chosen:
            libc = ctypes.CDLL(None)
        for start, end in chosen:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


@contextmanager
def mapped_inside(files: Collection[Path]) -> Iterator[FilePages]:
    """Find, at the end of the block, the mappings of `files` that it has made.

    Those of other sessions over the same files are left out: they end when these end, and something
    else may lie in their place.
    """
    pages = FilePages()
    if sys.platform != "linux":
        yield pages
        return
    names = {str(file) for file in files}
    with _LOADING:
        before = [place for place, _ in _mappings(names)]
        yield pages
        for place, own in list(_mappings(names)):
            # A page of the process's own could not be read back from the file.
            if own == 0 and not any(_meet(place, other) for other in before):
                pages.ranges.append(place)


def _state(file: Path) -> tuple[int, int, int]:
    """Which file it is, and what changes when it is written to."""
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _mappings(names: set[str]) -> Iterator[tuple[Range, int]]:
    """Where files are mapped, and how many KiB there are no longer the file's."""
    place = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if found := _MAPPING.fullmatch(line):
            place = (int(found[1], 16), int(found[2], 16)) if found[3] in names else None
        elif place and line.startswith("Anonymous:"):
            yield place, int(line.split()[1])


def _meet(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]
