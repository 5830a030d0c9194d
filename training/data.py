"""Reads files of training data as records, and reports all faults of a file at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from issun.runtime.errors import Notify
from issun.runtime.files import as_utf8, reason_of, user_path
from issun.runtime.text.tokenizer import Tokenizer
from issun.training.errors import DataError, RecordError, fault
from issun.training.fields import examples_of
from issun.training.records import BOS, EOS, Example
from issun.training.sources import check_encoding, lines_of, objects_of


@dataclass(frozen=True, slots=True)
class Record:
    """A record's text, the line of the file on which it starts, and the example it was built from.

    A line of a .txt file has no `example`, and special tokens in it are encoded as tokens.
    """

    line: int
    text: str
    example: Example | None = field(default=None, compare=False)

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """The token ids of the record."""
        if self.example is None:
            return tokenizer.encode(self.text, special=True)
        return self.example.encode(tokenizer)


@dataclass(frozen=True, slots=True)
class Faults:
    """Lines that are not a record, with the reasons; `str` groups lines with the same reason."""

    items: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        """All faults, such as "lines 3, 7-9: not JSON; line 4: `output` is missing"."""
        lines: dict[str, list[int]] = {}
        for line, reason in self.items:
            lines.setdefault(reason, []).append(line)
        return "; ".join(f"{line_numbers(at)}: {reason}" for reason, at in lines.items())


def line_numbers(lines: Iterable[int]) -> str:
    """Line numbers as text: "line 3", "lines 3, 7-9"."""
    numbers = sorted(set(lines))
    runs = [
        [line for _, line in run]
        for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ]
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"line {text}" if len(numbers) == 1 else f"lines {text}"


def read_records(path: Path, *, notify: Notify = lambda template, **values: None) -> list[Record]:
    """Read a file of records: JSON, JSON Lines, CSV, TSV or Parquet, or .txt with finished records.

    An instruction has the fields `instruction`, `output` and optionally `input`. A chat has
    `message`, `answer`, and optionally `role` (lines, or a text as for `Conversation`) and
    `history` (pairs of message and answer, or alternating lines `User:...` and `Assistant:...`). A
    conversation has `messages` and gives one record for each answer. See `issun.training.fields`
    for other field names. `notify` is called about fields that are not used. Raises DataError,
    which lists every line that is not a record and the reason; Parquet rows count as lines.
    """
    path = user_path(path)
    try:
        raw = as_utf8(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not raw:
        raise DataError("{path} is empty.", path=path)
    ignored: Counter[str] = Counter()
    if path.suffix.lower() == ".txt":
        check_encoding(path, raw)
        found = _lines_as_records(raw)
    else:
        found = _as_records(objects_of(path, raw), ignored)
    records, faults = [], []
    for item in found:
        if isinstance(item, Record):
            records.append(item)
        else:
            faults.append(item)
    if faults:
        raise DataError(
            "{path}: {bad:,} of {total:,} records cannot be used: {faults}.",
            path=path,
            bad=len(faults),
            total=len(faults) + len(records),
            faults=Faults(tuple(faults)),
        )
    if not records:
        raise DataError("{path} contains no records.", path=path)
    if ignored:
        notify(
            "{path}: ignored the fields {fields}.",
            path=path,
            fields=", ".join(f"`{name}` ({count:,})" for name, count in sorted(ignored.items())),
        )
    return records


Found = Iterator[Record | tuple[int, str]]


def _as_records(objects: Iterable[tuple[int, Any]], ignored: Counter[str]) -> Found:
    """The records of each object, or its line and the reason why it is not one."""
    for line, value in objects:
        try:
            if isinstance(value, RecordError):
                raise value
            for example in examples_of(value, ignored):
                yield Record(line, example.text(), example)
        except RecordError as error:
            yield line, str(error.values["reason"])


def _lines_as_records(raw: bytes) -> Found:
    for line, found in lines_of(raw, _checked):
        if isinstance(found, RecordError):
            yield line, str(found.values["reason"])
        else:
            yield Record(line, found)


def _checked(line: str) -> str:
    """The line, which must be a finished record."""
    if not line.startswith(BOS) or not line.endswith(EOS):
        raise fault(f"does not start with {BOS} and end with {EOS}")
    for token in (BOS, EOS):
        if line.count(token) > 1:
            raise fault(f"contains {token} more than once")
    return line
