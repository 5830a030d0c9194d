"""Reads an input file row by row, each as one line of JSON; nothing is held in memory."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, AnyStr

import msgspec
import numpy as np

from issun.cluster.errors import BatchError
from issun.cluster.requests import Kind, decode_bytes, kind_of
from issun.runtime.files import decode_utf8, guess_encoding, open_regular, reason_of
from issun.runtime.manifest import sha256_of

_MAX_LINE = 16 << 20  # bytes
TABLE_ROWS = 1024  # rows of a Parquet file that are decoded together
_PARQUET_BUFFER = 1 << 20  # bytes; without it a whole group of rows is read
_UTF_8, _MARK = "utf-8", codecs.BOM_UTF8
_ESCAPE = b"\x1b"  # of ISO-2022-JP, which is ASCII otherwise
# PowerShell's `>` writes one of the first two.
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

Row = tuple[int, bytes]  # its index in the input, and its JSON


class _Name(msgspec.Struct):
    custom_id: Any = None  # text in requests; other rows may have a number


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of an input before its rows are answered."""

    rows: int
    sha256: str
    kind: Kind
    state: tuple[int, int]  # size and time of the last change

    def check_unchanged(self, path: Path, state: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return the present state of the input; `state` is the last one known, or the survey's.

        Raises BatchError if its content has changed.
        """
        now = _state(path)
        if now != (state or self.state) and sha256_of(path) != self.sha256:
            raise _changed(path)
        return now

    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows; raises BatchError once the input has changed."""
        index, state = -1, self.state
        for index, line in enumerate(read_rows(path)):
            state = self.check_unchanged(path, state)
            if index == self.rows:
                break
            yield index, line
        if index + 1 != self.rows:
            raise _changed(path)


def read_rows(path: Path) -> Iterator[bytes]:
    """Yield each row as one line of JSON; lines of JSON are not checked, blank ones are skipped.

    Raises BatchError if the file cannot be read.
    """
    try:
        yield from READERS[path.suffix](path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def table_columns(path: Path) -> list[str] | None:
    """Return the column names of a table; None for lines of JSON, which have no common ones."""
    try:
        if path.suffix == ".csv":
            with _open_text(path) as file:
                return next(csv.reader(_bounded_lines(file, path)), [])
        if path.suffix == ".parquet":
            return [str(name) for name in open_parquet(path).schema_arrow.names]
    except (OSError, ValueError, csv.Error) as error:
        raise _unreadable(path, error) from error
    return None


def survey(path: Path, *, template: bool = False) -> Survey:
    """Read the whole input once; `template` says that a template makes the prompts.

    Takes 8 bytes of memory a row. Raises BatchError if there are no rows, if a `custom_id` occurs
    twice, or if the file cannot be read or is not in UTF-8.
    """
    state = _state(path)
    rows, hashes = 0, array("Q")
    kind: Kind = "simple"  # a table has no whole requests
    decoder = msgspec.json.Decoder(_Name)
    encodings = _Encodings()
    for line in read_rows(path):
        encodings.see(line)
        if kind == "simple" and path.suffix == ".jsonl":
            kind = kind_of(_decoded(line), template=template) or kind
        rows += 1
        if name := _name(decoder, line):
            hashes.append(_hash(name))
    if not rows:
        raise BatchError("{path} has no rows.", path=path)
    if encodings.error:
        raise _unreadable(path, encodings.error) from encodings.error
    _check_unique(path, decoder, np.frombuffer(hashes, np.uint64))
    sha256 = sha256_of(path)
    if _state(path) != state:
        raise _changed(path)
    return Survey(rows, sha256, kind, state)


class _Encodings:
    """Tells a file in another encoding from one in UTF-8 with damaged lines, which become rows."""

    def __init__(self) -> None:
        self._utf8 = False  # a line proves it
        self._error: UnicodeDecodeError | None = None  # of the first line in another encoding

    def see(self, line: bytes) -> None:
        """Look at a line."""
        if self._utf8:
            return
        wide = _is_wide(line)
        if line.isascii() and not wide and _ESCAPE not in line:
            return
        try:
            decode_utf8(line)
            self._utf8 = not line.isascii()
            error = UnicodeDecodeError(_UTF_8, line, 0, 1, "NUL") if wide else None
        except UnicodeDecodeError as raised:
            error = raised
        if error and self._error is None and guess_encoding(line):
            self._error = error

    @property
    def error(self) -> UnicodeDecodeError | None:
        """Why the file cannot be read."""
        return None if self._utf8 else self._error


def _is_wide(line: bytes) -> bool:
    """Whether every other byte is NUL, as in Latin letters in UTF-16, unlike zeros of a crash."""
    fewer, more = sorted((line[::2].count(0), line[1::2].count(0)))
    return more > 0.6 * (len(line) // 2) and fewer < 0.1 * more


def _check_unique(path: Path, decoder: msgspec.json.Decoder[_Name], hashes: Any) -> None:
    """Raise BatchError if a name occurs twice; equal hashes alone are no proof."""
    hashes.sort()
    repeated = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not repeated:
        return
    seen: dict[str, int] = {}
    for index, line in enumerate(read_rows(path), 1):
        name = _name(decoder, line)
        if name and _hash(name) in repeated and (first := seen.setdefault(name, index)) != index:
            raise BatchError(
                "{path}: rows {first} and {second} have the same custom_id {name!r}.",
                path=path,
                first=first,
                second=index,
                name=name,
            )


def _name(decoder: msgspec.json.Decoder[_Name], line: bytes) -> str | None:
    try:
        found = decoder.decode(line).custom_id
        return None if found is None else str(found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # it becomes a row with an error


def _decoded(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _state(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _read_lines(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        start = file.read(4)
        if start.startswith(_WIDE_MARKS):
            start.decode()  # raises, so that the reason names the encoding
        file.seek(len(_MARK) if start.startswith(_MARK) else 0)
        for line in _bounded_lines(file, path):
            if line := line.strip():
                yield line


def _bounded_lines(file: IO[AnyStr], path: Path) -> Iterator[AnyStr]:
    """The lines of a file; raises BatchError for one that is too long."""
    while line := file.readline(_MAX_LINE):
        if len(line) == _MAX_LINE and line[-1:] not in ("\n", b"\n"):
            raise BatchError(
                "{path} has a line of more than {limit:,} bytes.", path=path, limit=_MAX_LINE
            )
        yield line


def _utf8_lines(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of a table; raises UnicodeDecodeError for ISO-2022-JP, which is ASCII."""
    for line in _bounded_lines(file, path):
        if "\x1b" in line:
            decode_utf8(line.encode())
        yield line


def _open_text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="")


def _read_csv(path: Path) -> Iterator[bytes]:
    csv.field_size_limit(_MAX_LINE)
    with _open_text(path) as file:
        rows = csv.DictReader(_utf8_lines(file, path), restval=None, strict=True)
        try:
            for row in rows:
                if None in row:
                    raise BatchError(
                        "{path}, line {line}: there are more fields than columns.",
                        path=path,
                        line=rows.line_num,
                    )
                yield msgspec.json.encode(row)
        except csv.Error as error:
            line = rows.reader.line_num
            raise BatchError(
                "{path}, line {line}: {reason}", path=path, line=line, reason=error
            ) from error


def open_parquet(path: Path) -> Any:
    """A Parquet file that is read in small parts; raises OSError and ValueError."""
    from pyarrow import parquet  # noqa: PLC0415

    open_regular(path).close()
    return parquet.ParquetFile(path, buffer_size=_PARQUET_BUFFER, pre_buffer=False)


def _read_parquet(path: Path) -> Iterator[bytes]:
    encode = msgspec.json.Encoder(enc_hook=_pandas_time).encode
    try:
        for batch in open_parquet(path).iter_batches(TABLE_ROWS):
            for row in batch.to_pylist():
                yield encode(decode_bytes(row))
    # A value that Python or JSON does not have.
    except (ValueError, TypeError, OverflowError) as error:
        raise _unreadable(path, error) from error


def _pandas_time(value: Any) -> str:
    """The text of a time in nanoseconds, for which pyarrow takes a class of pandas."""
    if isinstance(value, datetime | timedelta):
        text: str = value.isoformat()  # type: ignore[union-attr]  # pandas has it for both
        return text
    raise TypeError(f"values of type {type(value).__name__} cannot be written as JSON")


def _changed(path: Path) -> BatchError:
    return BatchError(
        "{path} was changed during the run. Restore it and repeat the command, or write to another "
        "file.",
        path=path,
    )


def _unreadable(path: Path, error: Exception) -> BatchError:
    return BatchError("{path} cannot be read: {reason}", path=path, reason=reason_of(error))


READERS = {".jsonl": _read_lines, ".csv": _read_csv, ".parquet": _read_parquet}  # by suffix
