"""Keeps the answered rows of a batch on disk, so that a run can be continued after any crash.

The first line is a header, which says what the answers belong to. Each other line is `INDEX STATUS
CRC JSON`: a row's index in the input, its HTTP status, a checksum, and its output line. A line
counts once it is whole; all are flushed to the disk before their rows count as answered.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from issun.cluster.errors import BatchError, write_error
from issun.runtime.files import sync

_OK = 200
_LINE = re.compile(rb"(\d{1,18}) (\d{3}) ([0-9a-f]{8}) (.*)\n", re.DOTALL)


class Answer(NamedTuple):
    """An answered row: its index, HTTP status, output line, and number of new tokens."""

    row: int
    status: int
    line: bytes
    tokens: int = 0


class Journal:
    """The answers to `rows` rows; one process writes at a time.

    Takes 8 bytes of memory a row. Raises BatchError if the file belongs to another batch, which
    `header` describes, and if it cannot be read or written. In the header, a switch of the command
    has its name there, such as `--exact`, and None unless it is given.
    """

    def __init__(self, path: Path, header: dict[str, Any], rows: int) -> None:
        self.path, self.rows = path, rows
        self.done = self.failed = 0
        self._offsets = np.zeros(rows, np.int64)  # of the lines; 0: not answered
        with self._explained():
            # Unbuffered, so that nothing is left to be written after an error.
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            self._end = self._resume(header)
            self._file.truncate(self._end)  # what a crash has torn off
            if not self._end:
                self._append(msgspec.json.encode(header) + b"\n")
                sync(path.parent)

    def __contains__(self, index: int) -> bool:
        """Whether a row has been answered."""
        return bool(self._offsets[index])

    @property
    def complete(self) -> bool:
        """Whether every row has been answered."""
        return self.done == self.rows

    def add(self, answers: Iterable[Answer]) -> None:
        """Write answers to the disk, except for rows that have been answered.

        Raises BatchError, after which the journal can be opened again.
        """
        parts, end = [], self._end
        for answer in answers:
            if answer.row in self:
                continue
            start = b"%d %d " % (answer.row, answer.status)
            part = b"%b%08x %b\n" % (start, zlib.crc32(start + answer.line), answer.line)
            self._count(answer.row, answer.status, end)
            parts.append(part)
            end += len(part)
        if parts:
            with self._explained():
                self._append(b"".join(parts))

    def lines(self) -> Iterator[bytes]:
        """Yield the output lines in the order of the input, without line ends.

        Raises BatchError if the file has been damaged.
        """
        # The open file, which is still there if somebody has removed its name.
        with open(self._file.fileno(), "rb", closefd=False) as file:
            for index, offset in enumerate(self._offsets):
                file.seek(int(offset))
                found = _parse(file.readline())
                if not found or found.row != index:
                    raise BatchError(
                        "{path} is damaged: repeat the command, which answers those rows again.",
                        path=self.path,
                    )
                yield found.line

    def _append(self, data: bytes) -> None:
        self._file.seek(self._end)
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())
        self._end += len(data)

    def _count(self, index: int, status: int, offset: int) -> None:
        self._offsets[index] = offset
        self.done += 1
        self.failed += status != _OK

    def _resume(self, header: dict[str, Any]) -> int:
        """Read the file and return where its last whole line ends."""
        with self.path.open("rb") as file:
            first = file.readline()
            torn = not first.endswith(b"\n")  # perhaps with zeros for what was not written yet
            if torn and msgspec.json.encode(header).startswith(first.rstrip(b"\0")):
                return 0
            self._check(first, header)
            position = end = len(first)
            for line in file:
                offset, position = position, position + len(line)
                found = _parse(line)
                if not found or found.row >= self.rows:
                    continue  # damaged or torn off, so that its row is answered again
                if found.row not in self:
                    self._count(found.row, found.status, offset)
                end = position
        return end

    def _check(self, line: bytes, header: dict[str, Any]) -> None:
        try:
            found = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            found = {}
        for name, value in header.items():
            if found.get(name) == value:
                continue
            if not name.startswith("--"):
                raise BatchError(
                    "{path} is of a run with another {part}: repeat that run, or delete the file "
                    "to start again.",
                    path=self.path,
                    part=name,
                )
            if value:
                raise BatchError(
                    "{path} is of a run without {name}: leave it out, or delete the file to start "
                    "again.",
                    path=self.path,
                    name=name,
                )
            raise BatchError(
                "{path} is of a run with {name}: give it too, or delete the file to start again.",
                path=self.path,
                name=name,
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, and remove it if it has no answers."""
        self.close()
        if not self.done:
            self.path.unlink(missing_ok=True)


def _parse(line: bytes) -> Answer | None:
    """The answer of a line; None if it is not whole."""
    found = _LINE.fullmatch(line)
    if not found or int(found[3], 16) != zlib.crc32(line[: found.start(3)] + found[4]):
        return None
    return Answer(int(found[1]), int(found[2]), found[4])
