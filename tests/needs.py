"""What some tests need of the system, as marks that skip them elsewhere and say why."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest


def _links_are_allowed() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            (Path(folder) / "link").symlink_to("target")
        except OSError:  # Windows asks for a privilege
            return False
    return True


posix = pytest.mark.skipif(
    os.name != "posix", reason="needs POSIX: signals, modes, shells and files that are in use"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs files and calls of Linux")
links = pytest.mark.skipif(not _links_are_allowed(), reason="symbolic links are not allowed here")
bash = pytest.mark.skipif(
    os.name != "posix" or shutil.which("bash") is None, reason="needs bash and its pipes"
)
terminal = pytest.mark.skipif(os.name != "posix", reason="there are no pseudo-terminals")


def has_mode(path: Path, mode: int) -> bool:
    """True where `path` has these rights, and on Windows, which has no such modes."""
    return os.name != "posix" or path.stat().st_mode & 0o777 == mode
