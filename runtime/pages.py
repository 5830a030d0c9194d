"""Which pages of files the process maps, and how large they are."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

_LARGE = 2 << 20  # a large page
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")


def read_in_large_pages(file: Path) -> None:
    """Bring `file` into memory in pages of 2 MB, where the system has them for files.

    A weight is read faster out of these, since the CPU looks up one address instead of 512. What is
    in memory already stays as it is; elsewhere than on Linux this does nothing.
    """
    if sys.platform != "linux":
        return
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as pages:
        with suppress(OSError):  # a kernel without large pages
            pages.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, len(pages), _LARGE):
            pages[start]  # reads it
            pages.madvise(mmap.MADV_DONTNEED, start, min(_LARGE, len(pages) - start))


def drop_file_pages(files: Collection[Path]) -> None:
    """Let go of the pages of `files` that the process maps; they come back when they are read.

    Loading reads the embedding's whole table once, answers a few rows of it. Linux alone tells
    what is mapped where; elsewhere this does nothing.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for start, end in list(_unchanged({str(file) for file in files})):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _unchanged(names: set[str]) -> Iterator[tuple[int, int]]:
    """Mappings of files that hold no page of their own, which could not be read back."""
    place = None
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if found := _MAPPING.fullmatch(line):
            place = (int(found[1], 16), int(found[2], 16)) if found[3] in names else None
        elif place and line.split() == ["Anonymous:", "0", "kB"]:
            yield place
