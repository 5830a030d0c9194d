"""Reads the rows of CSV, TSV and Parquet files as objects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from issun.runtime.files import check_columns
from issun.training.errors import DataError, RecordError, fault
from issun.training.fields import field_of

DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}  # the most frequent one in the header is used
_NESTED = ("history", "messages")  # fields whose cells contain JSON
_MAX_CELL = 1 << 30  # characters
_BATCH_ROWS = 1024  # of Parquet


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The rows after the header, each with its line; raises DataError for an invalid header."""
    header_line = text.partition("\n")[0]
    delimiter = max(DELIMITERS[path.suffix.lower()], key=header_line.count)
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = next(reader, [])
    check_columns(path, filter(None, header), DataError)
    line = reader.line_num + 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, fault(f"not a table row: {error}")
            return
        if row:
            yield line, _row(header, row)
        line = reader.line_num + 1


def _row(header: list[str], row: list[str]) -> dict[str, Any] | RecordError:
    if len(row) != len(header):
        return fault(f"{len(row)} cells, but the header has {len(header)}")
    value: dict[str, Any] = dict(zip(header, row, strict=True))
    for name, cell in value.items():
        if field_of(name) in _NESTED:
            try:
                value[name] = json.loads(cell) if cell.strip() else None
            except (ValueError, RecursionError):
                return fault(f"`{name}` is not JSON")
    return value


def parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows, numbered from 1; raises DataError for a damaged file or if pyarrow is missing."""
    try:
        from pyarrow import ArrowException  # noqa: PLC0415
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise DataError(
            '{path} is Parquet, which needs {module}: pip install "issun[train]"',
            path=path,
            module=error.name,
        ) from error
    try:
        with ParquetFile(path) as file:
            check_columns(path, file.schema_arrow.names, DataError)
            rows = (row for batch in file.iter_batches(_BATCH_ROWS) for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except (ArrowException, OSError) as error:
        raise DataError("{path} cannot be read: {reason}", path=path, reason=error) from error
