"""Gives memory back that the process holds and no longer needs."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")


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
