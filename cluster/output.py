"""Writes the output of a batch as a whole."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from issun.cluster.errors import BatchError, write_error
from issun.cluster.requests import RESULTS
from issun.cluster.rows import READERS, TABLE_ROWS, table_columns
from issun.runtime.files import sync


def check_suffixes(source: Path, target: Path) -> None:
    """Raise BatchError for files of unknown kinds, and for a table that the input is not."""
    if source.suffix not in READERS:
        raise BatchError(
            "{path} has an unknown ending: the input must end with {known}.",
            path=source,
            known=", ".join(READERS),
        )
    known = tuple(dict.fromkeys((".jsonl", source.suffix)))
    if target.suffix not in known:
        raise BatchError(
            "{path} has an unknown ending: the output of {source} must end with {known}.",
            path=target,
            source=source.name,
            known=" or ".join(known),
        )


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
        writers[target.suffix](source, partial, lines)
        sync(partial)
        partial.replace(target)
        sync(target.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise write_error(target, error) from error


def _write_lines(source: Path, path: Path, lines: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for line in lines:
            file.write(line + b"\n")


def _write_csv(source: Path, path: Path, lines: Iterable[bytes]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*(table_columns(source) or []), *RESULTS])
        writer.writeheader()
        writer.writerows(map(msgspec.json.decode, lines))


def _write_parquet(source: Path, path: Path, lines: Iterator[bytes]) -> None:
    """Append the results to the columns of the input, whose types stay as they are."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    read = parquet.ParquetFile(source)
    types = (pa.string(), pa.string(), pa.int16(), pa.string())
    schema = read.schema_arrow
    for name, kind in zip(RESULTS, types, strict=True):
        schema = schema.append(pa.field(name, kind))
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in read.iter_batches(TABLE_ROWS):
            rows = [msgspec.json.decode(line) for line in islice(lines, batch.num_rows)]
            results = [
                pa.array([row[name] for row in rows], kind)
                for name, kind in zip(RESULTS, types, strict=True)
            ]
            writer.write_batch(pa.record_batch([*batch.columns, *results], schema=schema))
