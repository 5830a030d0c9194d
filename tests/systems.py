"""Linux made to look like Windows or macOS, as far as issun's own code can tell.

Modules of issun see that system's `sys.platform` and `os.name`; libraries see the real ones. For
Windows, files behave as they do there: what is open or mapped is neither removed nor renamed,
nothing is renamed onto something that exists, no link to a folder is replaced, folders have no
handles, and only what is open for writing can be flushed. What the C libraries of the other system
do is not known here: this finds code that relies on POSIX, and nothing else.
"""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import issun
import issun.export
import issun.runtime
import issun.training

PLATFORMS = {"win32": "nt", "darwin": "posix"}
_NOT_ON_WINDOWS = {"fork", "geteuid", "getuid", "mkfifo", "posix_fadvise", "setsid", "sysconf"}
_LINUX_ALONE = {"posix_fadvise", "sched_getaffinity"}


def pretend(platform: str, patch: pytest.MonkeyPatch) -> None:
    """Let issun believe that it runs on `platform`, one of PLATFORMS, until `patch` is undone."""
    missing = _LINUX_ALONE | (_NOT_ON_WINDOWS if platform == "win32" else set())
    changed = {
        "sys": _Changed(sys, set(), platform=platform),
        "os": _Changed(os, missing, name=PLATFORMS[platform]),
    }
    for module in _modules():
        for name, real in (("sys", sys), ("os", os)):
            if vars(module).get(name) is real:
                patch.setattr(module, name, changed[name])
    patch.setattr("issun.runtime.weights.cores._windows_cores", bytes)
    patch.setattr("issun.runtime.weights.cores._apple_performance_cores", int)
    if platform == "win32":
        _patch_files(patch)
        patch.setitem(sys.modules, "resource", None)
    patch.setitem(sys.modules, "fcntl", None)


class _Changed(ModuleType):
    """A module with some attributes changed and some missing."""

    def __init__(self, module: ModuleType, missing: set[str], **changes: object) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(changes, _module=module, _missing=missing)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["_missing"]:
            raise AttributeError(name)
        return getattr(self.__dict__["_module"], name)


def _modules() -> list[ModuleType]:
    """Every module of issun that needs none of the extras that are not installed."""
    found = []
    for package in (issun.runtime, issun.export, issun.training):
        for entry in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                found.append(importlib.import_module(entry.name))
            except ImportError:
                continue
    return found


def _in_use(path: Path) -> bool:
    """True where this process has `path`, or something in it, open or mapped."""
    try:
        real = path.resolve(strict=True)
    except OSError:
        return False
    if path.is_symlink() or path.name.startswith(".filelock-"):  # the library's POSIX part
        return False
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    held = [line.split(maxsplit=5)[5] for line in lines if "/" in line]
    for handle in Path("/proc/self/fd").iterdir():
        try:
            held.append(str(handle.readlink()))
        except OSError:
            continue
    return any(Path(name) == real or real in Path(name).parents for name in held)


def _refuse(path: Path | str) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _patch_files(patch: pytest.MonkeyPatch) -> None:
    import fcntl

    rename, replace, unlink, chmod, fsync, opened = (
        os.rename, os.replace, os.unlink, os.chmod, os.fsync, os.open,
    )  # fmt: skip

    def renamed(source: Any, target: Any, **more: Any) -> None:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        if _in_use(Path(source)):
            raise _refuse(source)
        rename(source, target, **more)

    def replaced(source: Any, target: Any, **more: Any) -> None:
        if Path(target).is_dir() or _in_use(Path(target)) or _in_use(Path(source)):
            raise _refuse(target)
        replace(source, target, **more)

    def removed(path: Any, **more: Any) -> None:
        if _in_use(Path(path)):
            raise _refuse(path)
        unlink(path, **more)

    def open_file(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if Path(path).is_dir():
            raise _refuse(path)
        return opened(path, flags, *more, **named)

    def flushed(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        fsync(handle)

    def mode(path: Any, bits: int, **more: Any) -> None:
        chmod(path, 0o666 if bits & 0o200 else 0o444, **more)

    changed: dict[str, Callable[..., Any]] = {
        "rename": renamed,
        "replace": replaced,
        "unlink": removed,
        "remove": removed,
        "open": open_file,
        "fsync": flushed,
        "chmod": mode,
    }
    for name, function in changed.items():
        patch.setattr(os, name, function)
    patch.setattr(shutil, "_use_fd_functions", False)
