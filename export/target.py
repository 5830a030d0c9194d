"""Where a bundle is written: beside the target first, then put in its place whole."""

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
    """`target` as an absolute path without `..`; what it names itself is not followed."""
    path = user_path(target)
    if path.name in ("", ".."):
        return path.resolve()
    return path.parent.resolve() / path.name


def check_target(target: Path, source: Path | None, *, force: bool) -> None:
    """Refuse a target that must not be written; done before any work.

    `force` allows an empty folder and one that holds a bundle. Raises TargetError.
    """
    if target.is_symlink():
        raise TargetError("{target} is a symbolic link: name the folder itself.", target=target)
    if not target.parent.is_dir():
        raise TargetError("There is no folder {parent}.", parent=target.parent)
    real = target.resolve()
    if source is not None and source.exists():
        held = source.resolve()
        if real == held or held in real.parents or real in held.parents:
            raise TargetError(
                "{target} is, holds or lies in the checkpoint {source}: choose another folder.",
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
    """Raise TargetError when fewer than `needed` bytes are free where `target` will be."""
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise TargetError(
            "{target} needs {needed:,} MB of disk space and {free:,} MB are free.",
            target=target,
            needed=-(-needed // 10**6),
            free=free // 10**6,
        )


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well.

    An old bundle at `target` is renamed aside first and deleted last, so that after a crash at any
    point one whole bundle is there; `clear_remains` clears up what a killed export has left. What
    another export has put at `target` meanwhile is not replaced. Raises TargetError.
    """
    replaces = target.exists()
    name = f".{target.name}.{secrets.token_hex(4)}"
    folder, aside = target.with_name(f"{name}.partial"), target.with_name(f"{name}.old")
    lock = FileLock(target.with_name(f"{name}.lock"))
    try:
        with _removed(Path(lock.lock_file)), lock:
            try:
                folder.mkdir()
                yield folder
                _sync(folder)
                if replaces:
                    target.rename(aside)
                folder.rename(target)
                sync(target.parent)
            finally:
                _settle(target, aside)
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise TargetError(
            "{target} cannot be written: {reason}",
            target=target,
            reason=reason_of(error),
        ) from error


@contextmanager
def _removed(lock_file: Path) -> Iterator[None]:
    """Remove `lock_file` behind the block: Windows does not while its lock is held."""
    try:
        yield
    finally:
        with suppress(OSError):  # another process looks whether this export is still running
            lock_file.unlink(missing_ok=True)


def clear_remains(target: Path, notify: Notify) -> None:
    """Remove unfinished folders of exports of `target` that were killed; put an old bundle back."""
    if not target.parent.is_dir():
        return
    # The whole name, since that of another target may begin with this one's.
    ours = re.compile(re.escape(f".{target.name}.") + r"[0-9a-f]{8}\.lock")
    for lock_file in sorted(p for p in target.parent.iterdir() if ours.fullmatch(p.name)):
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue  # that export is still running
        partial, aside = lock_file.with_suffix(".partial"), lock_file.with_suffix(".old")
        if _settle(target, aside):
            notify("Put back {target}, which a killed export had set aside.", target=target)
        if partial.exists():
            shutil.rmtree(partial)
            notify("Removed {partial}, left by an export that was killed.", partial=partial)
        lock.release()
        lock_file.unlink(missing_ok=True)


def _settle(target: Path, aside: Path) -> bool:
    """Delete the bundle set aside, or put it back where nothing has taken its place."""
    if not aside.exists():
        return False
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        return False
    aside.rename(target)
    return True


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        sync(path)
    sync(folder)
