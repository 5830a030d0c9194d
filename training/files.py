"""Atomic and durable writes of files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from issun.runtime.files import sync


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically: a reader sees the old or the new file, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON to `path` atomically."""
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    write_atomically(path, text.encode())


def sync_tree(folder: Path) -> None:
    """Flush `folder` and everything in it to disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
