"""Reads the objects of a training data file, each with the line on which it starts.

The formats are JSON Lines, a JSON list, a JSON object that contains a list, concatenated JSON
objects, CSV, TSV and Parquet. A RecordError takes the place of an object that cannot be read.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from issun.runtime.files import decode_utf8, guess_encoding, reason_of
from issun.training.errors import DataError, RecordError, fault
from issun.training.fields import field_of
from issun.training.tables import DELIMITERS, csv_rows, parquet_rows

Found = Iterator[tuple[int, Any]]

_BLANK = re.compile(r"[ \t\r\n\ufeff]*")  # concatenated files have byte order marks in the middle
_PARQUET = b"PAR1"
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"ARROW1": "an Arrow file",
}


def objects_of(path: Path, raw: bytes) -> Found:
    """The objects in `raw`, the content of `path`; raises DataError for unsupported files."""
    if raw.startswith(_PARQUET):
        return parquet_rows(path)
    for magic, kind in _OTHER_KINDS.items():
        if raw.startswith(magic):
            raise DataError(
                "{path} is {kind}: give JSON, JSON Lines, CSV, TSV, Parquet, or records as .txt.",
                path=path,
                kind=kind,
            )
    try:
        text = decode_utf8(raw)
    except UnicodeDecodeError as error:
        check_encoding(path, raw)
        if path.suffix.lower() in DELIMITERS:
            raise _unreadable(path, error) from error
        return _damaged(raw, error)
    if path.suffix.lower() in DELIMITERS:
        return csv_rows(path, text)
    return _Document(text).values() if _is_document(text) else lines_of(raw, _parsed)


def check_encoding(path: Path, raw: bytes) -> None:
    """Raise DataError for text in another encoding than UTF-8, but not for a damaged part."""
    try:
        decode_utf8(raw)
    except UnicodeDecodeError as error:
        if guess_encoding(raw):
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError("{path} cannot be read: {reason}", path=path, reason=reason_of(error))


def lines_of(raw: bytes, make: Callable[[str], Any]) -> Found:
    """The result of `make` for each line that is not blank, or the line's RecordError."""
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            text = decode_utf8(line).removesuffix("\r")
            if text.strip():
                yield number, make(text)
        except UnicodeDecodeError as error:
            yield number, fault(f"not UTF-8 (byte {error.start + 1} of the line)")
        except RecordError as error:
            yield number, error


def _damaged(raw: bytes, error: UnicodeDecodeError) -> Found:
    """The lines of a file with invalid UTF-8; for a JSON list only the error."""
    if raw.lstrip().startswith(b"["):
        return iter([(raw.count(b"\n", 0, error.start) + 1, fault("not UTF-8"))])
    return lines_of(raw, _parsed)


def _is_document(text: str) -> bool:
    """True for JSON over several lines, False for JSON Lines."""
    begin = _skip(text, 0)
    if text[begin : begin + 1] != "{":
        return text[begin : begin + 1] == "["
    line, _, rest = text[begin:].partition("\n")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        pass
    else:
        return not rest.strip() and _list_in(value) is not None
    try:
        _Decoder().decode(text, begin)
    except json.JSONDecodeError as error:
        return error.pos > begin + len(line)  # an error in the first line is one of JSON Lines
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(line: str) -> Any:
    """The value of a line; raises RecordError."""
    decoder = _Decoder()
    try:
        value, end = decoder.decode(line, _skip(line, 0))
    except (ValueError, RecursionError) as error:
        raise fault(_json_fault(error)) from error
    if _skip(line, end) < len(line):
        raise fault(f"not JSON: text after the value (column {end + 1})")
    decoder.check()
    return value


class _Decoder:
    """Decodes JSON values, and detects duplicate keys."""

    def __init__(self) -> None:
        self._duplicates: list[tuple[dict[str, Any], str]] = []
        self._json = json.JSONDecoder(object_pairs_hook=self._object)

    def decode(self, text: str, at: int) -> tuple[Any, int]:
        """The value at `at`, and where it ends; raises ValueError or RecursionError."""
        self._duplicates.clear()
        return self._json.raw_decode(text, at)

    def check(self, only: Any = None) -> None:
        """Raise RecordError for duplicate keys in the last value, or in the object `only`."""
        names = [name for found, name in self._duplicates if only is None or found is only]
        if names:
            raise fault("duplicate key " + ", ".join(f"`{name}`" for name in names))

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            self._duplicates += [(found, name) for name, count in counts.items() if count > 1]
        return found


class _Document:
    """JSON over several lines: a list, an object that contains one, or concatenated objects.

    After a value that is not JSON, the rest of the text cannot be read.
    """

    def __init__(self, text: str) -> None:
        self._text, self._at = text, _skip(text, 0)
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._decoder = _Decoder()

    def values(self) -> Found:
        """The elements or objects, each with its line."""
        text = self._text
        if text[self._at] == "[":
            yield from self._elements()
            if self._at < len(text):
                yield self._line(), fault("not JSON: text after the list")
            return
        while self._at < len(text):
            line, begin = self._line(), self._at
            try:
                value = self._take()
                name = _list_in(value)
                self._decoder.check(None if name is None else value)
            except RecordError as error:
                yield self._line_of(error, line), error
                if self._at == begin:  # not JSON
                    return
                continue
            if name is None:
                yield line, value
                continue
            end, self._at = self._at, self._place_of(name, begin)
            yield from self._elements()
            self._at = end

    def _elements(self) -> Found:
        """The elements of the list at the current position, which moves past it or to the end."""
        self._at = _skip(self._text, self._at + 1)
        mark = ","
        if self._text[self._at : self._at + 1] == "]":
            mark, self._at = "]", _skip(self._text, self._at + 1)
        while mark == ",":
            line, begin = self._line(), self._at
            try:
                value = self._take()
                self._decoder.check()
                yield line, value
            except RecordError as error:
                yield self._line_of(error, line), error
                if self._at == begin:
                    self._at = len(self._text)
                    return
            mark = self._text[self._at : self._at + 1]
            if mark not in ("]", ","):
                yield self._line(), fault("not JSON: a comma or ] is missing")
                self._at = len(self._text)
                return
            self._at = _skip(self._text, self._at + 1)

    def _take(self) -> Any:
        """Read the value at the current position; raises RecordError without moving past it."""
        try:
            value, end = self._decoder.decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            raise fault(_json_fault(error)) from error
        self._at = _skip(self._text, end)
        return value

    def _place_of(self, name: str, at: int) -> int:
        """The position of the value of the key `name` in the object at `at`."""
        while True:
            key, at = self._decoder.decode(self._text, _skip(self._text, at + 1))
            at = _skip(self._text, _skip(self._text, at) + 1)  # after the colon
            if key == name:
                return at
            at = _skip(self._text, self._decoder.decode(self._text, at)[1])  # at the comma

    @staticmethod
    def _line_of(error: RecordError, start: int) -> int:
        """The line of an error: a JSON error may be below the line on which the value starts."""
        return getattr(error.__cause__, "lineno", start)

    def _line(self) -> int:
        return bisect_left(self._breaks, self._at) + 1


def _list_in(value: Any) -> str | None:
    """The key of an object's list of records, unless the object is a record itself."""
    if not isinstance(value, dict) or any(field_of(name) for name in value):
        return None
    lists = [
        name
        for name, content in value.items()
        if isinstance(content, list) and all(isinstance(item, dict | list) for item in content)
    ]
    return lists[0] if len(lists) == 1 else None


def _skip(text: str, at: int) -> int:
    """The next position from `at` on that is not blank."""
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (column {error.colno})"
    return "not readable as JSON: nested too deeply, or a number is too long"
