"""Linears that GPTQ has fitted, on disk until the bundle is whole: a stopped export goes on."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from issun.export.errors import TargetError
from issun.export.quantize import Quantized
from issun.runtime.errors import Notify
from issun.runtime.files import reason_of

Load = Callable[[], Quantized]


class FittedStore:
    """One file a linear in a folder; those of another checkpoint, text or version are not taken."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._prefix = hashlib.sha256(key.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """How many linears are there."""
        return len(list(self._folder.glob(f"{self._prefix}.*.npz")))

    def keep(self, base: str, make: Callable[[], Quantized]) -> Load:
        """What reads the linear `base` again; `make` is asked where it is not there."""
        path = self._folder / f"{self._prefix}.{base}.npz"
        if not _whole(path):
            made = make()
            beside = path.with_suffix(".new")
            with beside.open("wb") as file:
                np.savez(file, values=made.values, scales=made.scales)
            beside.replace(path)
        return lambda: _read(path)


def _read(path: Path) -> Quantized:
    with np.load(path, allow_pickle=False) as found:
        return Quantized(found["values"], found["scales"])


def _whole(path: Path) -> bool:
    """False for a file that is missing or damaged: zip files have checksums."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


@contextmanager
def fitted_store(target: Path, key: str, notify: Notify) -> Iterator[FittedStore]:
    """The store beside `target`, which is removed when the block ends well.

    Raises TargetError while another export uses it.
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
        raise TargetError("Another export is fitting {target} now.", target=target) from error
    try:
        store = FittedStore(folder, key)
        if len(store):
            notify("Going on with a stopped export: {count} linears are fitted.", count=len(store))
        yield store
    finally:
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def clear_fitted(target: Path) -> None:
    """Remove what a stopped export of `target` has left, where nobody uses it."""
    folder = _folder(target)
    try:
        if folder.is_dir():
            FileLock(folder / ".lock", timeout=0).acquire().lock.release()
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        return  # another export uses it; or there can be no such folder, which the target tells


def _folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.gptq")
