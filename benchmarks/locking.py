"""Keeps two runs from writing to one file of results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from issun.benchmarks.errors import BenchError
from issun.runtime.files import check_output


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Lock `output` for the duration of the block; raises BenchError if another run has it."""
    check_output(output)
    lock = FileLock(output.with_name(f"{output.name}.lock"))
    Path(lock.lock_file).touch()  # FileLock would report a read-only folder as a held lock
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BenchError(
            "Another run is writing to {path}: wait until it ends, or name another file.",
            path=output,
        ) from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
