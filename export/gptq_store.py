"""Stores layers quantized by GPTQ on disk, so that an interrupted export can resume."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from issun.export.errors import CheckpointError, TargetError
from issun.export.quantize import Quantized
from issun.runtime.errors import Notify
from issun.runtime.files import reason_of

Load = Callable[[], Quantized]


class GPTQStore:
    """A folder with one file per linear layer.

    The files are named after a `key` (checkpoint, text, version); those of other keys are ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._prefix = hashlib.sha256(key.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """The number of stored linear layers."""
        return len(list(self._folder.glob(f"{self._prefix}.*.npz")))

    def get_or_create(self, base: str, make: Callable[[], Quantized]) -> Load:
        """A function that loads the linear layer `base`; `make` computes it if it is not stored."""
        path = self._folder / f"{self._prefix}.{base}.npz"
        if not _is_intact(path):
            quantized = make()
            partial = path.with_suffix(".new")
            with partial.open("wb") as file:
                np.savez(file, values=quantized.values, scales=quantized.scales)
            partial.replace(path)
        return lambda: _read(path)


def _read(path: Path) -> Quantized:
    with np.load(path, allow_pickle=False) as arrays:
        return Quantized(arrays["values"], arrays["scales"])


def _is_intact(path: Path) -> bool:
    """False for a missing or damaged file; zip files have checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


@contextmanager
def open_gptq_store(target: Path, key: str, notify: Notify) -> Iterator[GPTQStore]:
    """Open the store next to `target`; it is removed at the end of the block.

    After an error that is not the checkpoint's, as after a kill, it stays for a later export to
    resume from. Raises TargetError while another export uses it.
    """
    folder = _folder(target)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise TargetError(
            "{target} cannot be written: {reason}", target=target, reason=reason_of(error)
        ) from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TargetError("Another export to {target} is running.", target=target) from error
    store = GPTQStore(folder, key)
    try:
        if len(store):
            notify(
                "Resuming an interrupted export: {count} linear layers are already quantized.",
                count=len(store),
            )
        yield store
    except CheckpointError:  # a later export would end there too
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        lock.release()
        if not len(store):  # nothing that a later export could resume from
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def clear_gptq_store(target: Path) -> None:
    """Remove the store of an interrupted export of `target`, unless another export uses it."""
    folder = _folder(target)
    try:
        if folder.is_dir():
            FileLock(folder / ".lock", timeout=0).acquire().lock.release()
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        return  # it is in use, or the path is invalid, which the check of the target reports


def _folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.gptq")
