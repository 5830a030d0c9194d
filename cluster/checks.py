"""What a batch refuses: inputs, outputs and workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from issun.cluster.errors import BatchError
from issun.cluster.loading import WorkerInfo
from issun.cluster.requests import RESULTS, Template
from issun.cluster.rows import table_columns
from issun.runtime.files import check_columns, reason_of


class SameWorkers:
    """Raises BatchError for a worker that runs something else than the first one."""

    def __init__(self, bundle: str, *, exact: bool) -> None:
        self._bundle, self._exact = bundle, exact
        self._first: WorkerInfo | None = None

    def __call__(self, info: WorkerInfo) -> None:
        """Check one worker."""
        self._first = first = self._first or info
        differs = {
            "bundle": (self._bundle, info.bundle),
            "version of ONNX Runtime": (first.onnxruntime, info.onnxruntime),
            "KV cache": (first.kv_cache, info.kv_cache),
        }
        if self._exact:
            differs["kind of CPU"] = (first.cpu, info.cpu)
        for name, (expected, value) in differs.items():
            if value != expected:
                raise BatchError(
                    "A worker has another {part} than the rest: {value} instead of {expected}.",
                    part=name,
                    value=value,
                    expected=expected,
                )


def check_table(source: Path, template: Template | None) -> None:
    """Raise BatchError for a table with a missing, a repeated, or one of the output's columns."""
    columns = table_columns(source)
    if columns is None:
        return
    check_columns(source, columns, BatchError)
    for name in RESULTS:
        if name in columns:
            raise BatchError(
                "{path} has a column {name}, which the output adds: rename it.",
                path=source,
                name=name,
            )
    missing = [name for name in template.names if name not in columns] if template else []
    if missing or not (template or {"prompt", "instruction"} & {*columns}):
        raise BatchError(
            "{path} has no column {missing}; it has {columns}.",
            path=source,
            missing=", ".join(missing) or "instruction or prompt",
            columns=", ".join(columns),
        )


@contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Hold the lock of an output; raises BatchError if another process has it."""
    path = target.with_name(target.name + ".lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BatchError(
            "Another process writes {path}: wait for it, or name another file.", path=target
        ) from error
    except OSError as error:
        raise BatchError(
            "{path} cannot be written: {reason}", path=target, reason=reason_of(error)
        ) from error
    try:
        yield
    finally:
        if os.name == "posix":  # before the lock is released, so that no other one removes it
            path.unlink(missing_ok=True)
        lock.release()
