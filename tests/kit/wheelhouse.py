"""A few small wheels in a folder that pip takes as its only source, in place of an index."""

from __future__ import annotations

import ensurepip
import os
import shutil
import zipfile
from pathlib import Path

import pytest

# Stands in for issun where its start is tested: it shows what it was started with.
_ISSUN = """
import sys

def main():
    import helper
    print(sys.argv[1], *sys.argv[3:], "|", sys.stdin.read().strip(), "|", helper.__file__)
"""


def write_wheel(folder: Path, name: str, files: dict[str, str], *requires: str) -> Path:
    """A wheel of version 1.0 for any Python, with these files."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += "Provides-Extra: models\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = files | {f"{info}/METADATA": metadata, f"{info}/WHEEL": tag}
    files[f"{info}/RECORD"] = "".join(f"{one},,\n" for one in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def make_wheelhouse(folder: Path) -> Path:
    """issun's stand-in, what it needs everywhere and on Windows, and pip; gives issun's."""
    folder.mkdir()
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if not bundled:
        pytest.skip("this Python comes without the wheel of pip")
    shutil.copy(bundled[0], folder)
    write_wheel(folder, "helper", {"helper.py": ""}, "coloured ; sys_platform == 'win32'")
    write_wheel(folder, "coloured", {"coloured.py": ""})
    write_wheel(folder, "old", {"old.py": ""})
    files = {"issun/__init__.py": "", "issun/__main__.py": _ISSUN}
    write_wheel(folder, "tokenizers", {"tokenizers.py": ""})
    needed = ("helper>=1", "old ; python_version < '3.12'", "tokenizers ; extra == 'models'")
    return write_wheel(folder, "issun", files, *needed)


def pip_settings(folder: Path) -> dict[str, str]:
    """The environment in which pip knows the wheels in `folder` alone."""
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
