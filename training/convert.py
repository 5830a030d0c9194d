"""Converts training data to a text file of records: `python -m issun.training.convert IN OUT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from issun.runtime.errors import IssunError, Notify
from issun.runtime.files import reason_of, user_path
from issun.training.data import line_numbers, read_records
from issun.training.errors import DataError
from issun.training.files import write_atomically
from issun.training.records import SPECIAL_TOKENS


def convert(source: Path, target: Path, *, notify: Notify = lambda template, **values: None) -> int:
    """Write the records of `source` to the new file `target`, one per line; returns their number.

    Raises DataError for lines that are not a record, for records that cannot be written as text,
    and if `target` exists or cannot be written.
    """
    target = user_path(target)
    if target.exists() or target.is_symlink():
        raise DataError("{path} exists: choose another name.", path=target)
    records = read_records(source, notify=notify)
    spelled = {
        record.line: token
        for record in records
        if record.example and (token := record.example.spelled(SPECIAL_TOKENS))
    }
    if spelled:
        raise DataError(
            "{path}: text that spells a special token ({tokens}) would become that token in a "
            "text file ({lines}). Train on {path} itself with `issun finetune`.",
            path=source,
            tokens=", ".join(sorted(set(spelled.values()))),
            lines=line_numbers(spelled),
        )
    try:
        write_atomically(target, "".join(f"{record.text}\n" for record in records).encode())
    except OSError as error:
        raise DataError(
            "{path} cannot be written: {reason}", path=target, reason=reason_of(error)
        ) from error
    return len(records)


def main() -> int:
    """Convert a file as the command line says; returns the exit status, 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="issun.training.convert", description=__doc__)
    parser.add_argument(
        "data", metavar="IN", type=Path, help="JSON, JSONL, CSV, TSV, Parquet, or records as .txt"
    )
    parser.add_argument("target", metavar="OUT", type=Path, help="new file, one record a line")
    args = parser.parse_args()
    try:
        count = convert(args.data, args.target, notify=_say)
    except IssunError as error:
        print("error:", *str(error).split(), file=sys.stderr)
        return 2
    _say("{path}: {count:,} records", path=args.target, count=count)
    return 0


def _say(template: str, **values: object) -> None:
    print(template.format(**values), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
