"""Tables of training data, CSV, TSV and Parquet -> an object for each row."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from issun.training.errors import DataError, RecordError, fault
from issun.training.fields import field_of

DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}  # that which the header has most of
_NESTED = ("history", "messages")  # fields whose cells hold JSON
_LONGEST = 1 << 30  # characters of a cell
_ROWS = 1024  # of Parquet, at a time


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The rows below the header, each with its line; raises DataError for a header that is none."""
    header_line = text.partition("\n")[0]
    delimiter = max(DELIMITERS[path.suffix.lower()], key=header_line.count)
    csv.field_size_limit(_LONGEST)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = next(reader, [])
    _check_names(path, (name for name in header if name))
    line = reader.line_num + 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, fault(f"no row of a table: {error}")
            return
        if row:
            yield line, _row(header, row)
        line = reader.line_num + 1


def _row(header: list[str], row: list[str]) -> dict[str, Any] | RecordError:
    if len(row) != len(header):
        return fault(f"{len(row)} cells, where the header has {len(header)}")
    value: dict[str, Any] = dict(zip(header, row, strict=True))
    for name, cell in value.items():
        if field_of(name) in _NESTED:
            try:
                value[name] = json.loads(cell) if cell.strip() else None
            except (ValueError, RecursionError):
                return fault(f"`{name}` is no JSON")
    return value


def parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows, numbered from 1; raises DataError for a damaged file, and without pyarrow."""
    try:
        from pyarrow import ArrowException  # noqa: PLC0415
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DataError(
            "{path} is Parquet, which needs {module}: pip install 'issun[train]'",
            path=path,
            module=error.name,
        ) from error
    try:
        with ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            rows = (row for batch in file.iter_batches(_ROWS) for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except (ArrowException, OSError) as error:
        raise DataError("{path} cannot be read: {reason}", path=path, reason=error) from error


def _check_names(path: Path, names: Iterable[str]) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise DataError("{path} has the column {name!r} twice.", path=path, name=doubled[0])
