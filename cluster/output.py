"""Writes the output of a batch as a whole."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from issun.cluster.errors import BatchError, write_error
from issun.cluster.requests import RESULTS
from issun.cluster.rows import READERS, TABLE_ROWS, open_parquet, table_columns
from issun.runtime.files import sync


def check_suffixes(source: Path, target: Path) -> None:
    """Raise BatchError for files of unknown kinds, and for a table made from lines of JSON.

    Those have no common columns. Raises ModuleNotFoundError if a Parquet file cannot be written.
    """
    if source.suffix not in READERS:
        raise BatchError(
            "{path} has an unknown ending: the input must end with {known}.",
            path=source,
            known=", ".join(READERS),
        )
    known = (".jsonl",) if source.suffix == ".jsonl" else tuple(READERS)
    if target.suffix not in known:
        raise BatchError(
            "{path} has an unknown ending: the output of {source} must end with {known}.",
            path=target,
            source=source.name,
            known=" or ".join(known),
        )
    if target.suffix == ".parquet":
        import pyarrow  # noqa: F401, PLC0415 - before any work


def write_output(source: Path, target: Path, lines: Iterator[bytes]) -> None:
    """Write output lines, in the order of the input, to `target`, which appears when it is whole.

    Raises BatchError if that fails.
    """
    writers: dict[str, Callable[[Path, Path, Iterator[bytes]], None]] = {
        ".jsonl": _write_lines,
        ".csv": _write_csv,
        ".parquet": _write_parquet,
    }
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # perhaps a link
        writers[target.suffix](source, partial, lines)
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _write_lines(source: Path, path: Path, lines: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")


def _write_csv(source: Path, path: Path, lines: Iterable[bytes]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*(table_columns(source) or []), *RESULTS])
        writer.writeheader()
        for line in lines:
            row = msgspec.json.decode(line)
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    """A value of a Parquet file for CSV: lists and objects as JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def _write_parquet(source: Path, path: Path, lines: Iterator[bytes]) -> None:
    """Append the results to the columns of the input; those of a Parquet file keep their types."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    types = (pa.string(), pa.string(), pa.int16(), pa.string())
    added = [pa.field(name, kind) for name, kind in zip(RESULTS, types, strict=True)]
    if source.suffix == ".parquet":
        read = open_parquet(source)
        kept = read.schema_arrow
        batches = (
            (batch.columns, list(islice(lines, batch.num_rows)))
            for batch in read.iter_batches(TABLE_ROWS)
        )
    else:
        kept = pa.schema([])
        added = [pa.field(name, pa.string()) for name in table_columns(source) or ()] + added
        batches = (([], part) for part in iter(lambda: list(islice(lines, TABLE_ROWS)), []))
    schema = pa.schema([*kept, *added], metadata=kept.metadata)
    with parquet.ParquetWriter(path, schema) as writer:
        for columns, part in batches:
            rows = [msgspec.json.decode(line) for line in part]
            results = [pa.array([row[field.name] for row in rows], field.type) for field in added]
            writer.write_batch(pa.record_batch([*columns, *results], schema=schema))
