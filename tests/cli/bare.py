"""Runs a program as if issun had been installed without its extras.

The interpreter imports `sitecustomize` from PYTHONPATH at its start; that one hides every package
which a plain installation does not bring.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cli.conftest import Result, environment

_HIDING = """
import sys

class Hidden:
    names = frozenset({names!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@cache
def plain_distributions() -> frozenset[str]:
    """What `pip install issun` installs."""
    found, new = set[str](), {"issun"}
    while new:
        name = new.pop()
        found.add(name)
        try:
            needed = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:  # for another system
            continue
        new |= {
            canonicalize_name(one.name)
            for one in needed
            if one.marker is None or one.marker.evaluate({"extra": ""})
        } - found
    return frozenset(found)


def hidden_modules() -> set[str]:
    """The top-level modules that are installed here, and would not be in a plain installation.

    pip, which has put them there, is in both.
    """
    kept = plain_distributions() | {"pip"}
    return {
        module
        for module, owners in packages_distributions().items()
        if kept.isdisjoint(map(canonicalize_name, owners)) and not module.startswith("_")
    }


def run_bare(folder: Path, *arguments: str | Path, stdin: str = "") -> Result:
    """Run Python with `arguments` in `folder`, which is not the checkout."""
    (folder / "site").mkdir(exist_ok=True)
    hiding = _HIDING.format(names=sorted(hidden_modules()))
    (folder / "site" / "sitecustomize.py").write_text(hiding, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=environment(PYTHONPATH=str(folder / "site")),
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
