"""Writes a bundle atomically: to a folder next to the target, which is renamed at the end."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from issun.export.errors import TargetError
from issun.runtime.errors import Notify
from issun.runtime.files import reason_of, sync, user_path
from issun.runtime.manifest import MANIFEST_NAME


def real_target(target: str | Path) -> Path:
    """`target` as an absolute path without `..`; a symbolic link as last component is kept."""
    path = user_path(target)
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def check_target(target: Path, source: Path | None, *, force: bool) -> None:
    """Raise TargetError if `target` must not be written; called before any work.

    `force` allows an empty folder and a bundle to be replaced.
    """
    if target.is_symlink():
        raise TargetError("{target} is a symbolic link: name the folder itself.", target=target)
    if not target.parent.is_dir():
        raise TargetError("There is no folder {parent}.", parent=target.parent)
    real = target.resolve()
    if source is not None and source.exists():
        checkpoint = source.resolve()
        if real == checkpoint or checkpoint in real.parents or real in checkpoint.parents:
            raise TargetError(
                "{target} overlaps the checkpoint {source}: choose another folder.",
                target=target,
                source=source,
            )
    if not target.exists():
        return
    if not force:
        raise TargetError(
            "{target} exists: choose another folder, or replace the bundle in it with --force.",
            target=target,
        )
    is_bundle = (target / MANIFEST_NAME).is_file()
    if not target.is_dir() or not (is_bundle or not any(target.iterdir())):
        raise TargetError(
            "{target} is not a bundle, so --force does not replace it: choose another folder.",
            target=target,
        )


def check_space(target: Path, needed: int) -> None:
    """Raise TargetError if fewer than `needed` bytes are free on the disk of `target`."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise TargetError(
            "{target} needs {needed:,} MB of disk space, but only {free:,} MB are free.",
            target=target,
            needed=-(-needed // 10**6),
            free=free // 10**6,
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder next to `target` that is renamed to `target` if the block ends without an error.

    An old bundle at `target` is renamed first and deleted last, so that a crash at any point leaves
    one complete bundle; `clear_remains` removes the other files of a killed export. A bundle that
    another export has written to `target` in the meantime is kept. Raises TargetError.
    """
    replaces = target.exists()
    with scratch(target) as folder:
        backup = folder.with_suffix(".old")
        try:
            yield folder
            _sync(folder)
            if replaces:
                target.rename(backup)
            folder.rename(target)
            sync(target.parent)
        finally:
            _restore_or_delete(target, backup)


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A folder next to `target` for temporary files; raises TargetError.

    It is removed when the block ends, or by `clear_remains` if the process was killed.
    """
    name = f".{target.name}.{secrets.token_hex(4)}"
    folder, lock = target.with_name(f"{name}.partial"), FileLock(target.with_name(f"{name}.lock"))
    try:
        with _removed_afterwards(Path(lock.lock_file)), lock:
            try:
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise TargetError(
            "{target} cannot be written: {reason}",
            target=target,
            reason=reason_of(error),
        ) from error


@contextmanager
def _removed_afterwards(lock_file: Path) -> Iterator[None]:
    """Remove `lock_file` after the block, since Windows cannot remove a locked file."""
    try:
        yield
    finally:
        with suppress(OSError):  # another process is checking if this export is running
            lock_file.unlink(missing_ok=True)


def clear_remains(target: Path, notify: Notify) -> None:
    """Clean up after killed exports of `target`: delete partial folders, restore an old bundle."""
    if not target.parent.is_dir():
        return
    # Match the full name: another target's name may start with this one's.
    ours = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.lock")
    for lock_file in sorted(p for p in target.parent.iterdir() if ours.fullmatch(p.name)):
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # that export is still running
        partial, backup = lock_file.with_suffix(".partial"), lock_file.with_suffix(".old")
        if _restore_or_delete(target, backup):
            notify("Restored {target}, which a killed export had renamed.", target=target)
        if partial.exists():
            shutil.rmtree(partial)
            notify("Removed {partial}, which a killed export had left.", partial=partial)
        lock.release()
        lock_file.unlink(missing_ok=True)


def _restore_or_delete(target: Path, backup: Path) -> bool:
    """Restore the old bundle if there is none at `target`, else delete it; True if restored."""
    if not backup.exists():
        return False
    if target.exists():
        shutil.rmtree(backup, ignore_errors=True)
        return False
    backup.rename(target)
    return True


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        sync(path)
    sync(folder)
