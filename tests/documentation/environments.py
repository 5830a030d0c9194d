"""Environments to run a page's blocks in: the current one, or fresh ones made from a wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement

from tests.documentation.pages import ROOT, Environment

FOLDER = ROOT / "build" / "commands"


class Environments(Protocol):
    """Where a block's programs are."""

    def programs(self, wanted: Environment) -> Path | None:
        """The folder with `python` and `issun` of an environment; None where it is lacking."""


class Current:
    """The environment that runs the tests, for whatever it has installed."""

    def programs(self, wanted: Environment) -> Path | None:
        """The folder of this interpreter, if everything that is wanted is installed in it."""
        needed = [*_needed(set(wanted.extras)), *map(Requirement, wanted.packages)]
        return Path(sys.executable).parent if all(map(_is_installed, needed)) else None


class Fresh:
    """Environments that uv makes from a wheel of this checkout, one for each set of extras."""

    def __init__(self) -> None:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        _uv("build", "--quiet", "--wheel", "--out-dir", FOLDER, ROOT)
        (self._wheel,) = FOLDER.glob("issun-*.whl")

    def programs(self, wanted: Environment) -> Path:
        """The folder of its programs, made when first asked for. Raises CalledProcessError."""
        folder = FOLDER / (re.sub(r"[^\w.]+", "-", str(wanted)).strip("-"))
        binaries = folder / ("Scripts" if sys.platform == "win32" else "bin")
        if not folder.exists():
            print(f"making an environment of {wanted}", flush=True)
            extras = f"[{','.join(wanted.extras)}]" if wanted.extras else ""
            _uv("venv", "--quiet", "--python", sys.executable, folder)
            ours = f"issun{extras} @ {self._wheel.as_uri()}"
            _uv("pip", "install", "--quiet", "--python", folder, ours, *wanted.packages)
        return binaries


def _uv(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True)


def _needed(extras: set[str]) -> list[Requirement]:
    """What issun with these extras requires, its own extras followed."""
    found: dict[str, Requirement] = {}
    seen: set[str] = set()
    while todo := extras - seen:
        extra = todo.pop()
        seen.add(extra)
        for requirement in map(Requirement, requires("issun") or []):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            if requirement.name == "issun":
                extras = extras | requirement.extras
            else:
                found[requirement.name] = requirement
    return list(found.values())


def _is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False
