"""Runs parts of the JavaScript engine in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from issun.runtime.manifest import Manifest, read_manifest

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "build" / "web" / "node_modules"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(NODE is None, reason="there is no node on the path")


def run(name: str, folder: Path, manifest: Manifest | None = None, **task: Any) -> Any:
    """The results of the harness's task `name` with the bundle in `folder`."""
    described = msgspec.to_builtins(manifest or read_manifest(folder))
    request = {"name": name, "folder": str(folder), "manifest": described, **task}
    harness = Path(__file__).with_name("harness.mjs")
    found = subprocess.run(
        [str(NODE), str(harness)],
        input=json.dumps(request, ensure_ascii=True),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)
