"""An environment for each client: uv makes those of Python, npm one for all of JavaScript."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / "build" / "clients"
NEWEST = "2026-11-28"  # no later release is installed, so that a run can be repeated

# Clients that look for news, prices or models elsewhere find nothing here.
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "PYTHONWARNINGS": "ignore",
}


def scripts(names: Sequence[str]) -> list[Path]:
    """The scripts of the clients with these names, or of all; raises SystemExit for others."""
    found = {name_of(s): s for s in [*HERE.glob("python/try_*.py"), *HERE.glob("node/try_*.mjs")]}
    if unknown := set(names) - set(found):
        raise SystemExit(f"no client {', '.join(sorted(unknown))}: {', '.join(sorted(found))}")
    return [found[name] for name in names or sorted(found)]


def name_of(script: Path) -> str:
    """`openai` for python/try_openai.py, `openai-node` for node/try_openai.mjs."""
    name = script.stem.removeprefix("try_").replace("_", "-")
    return name if script.suffix == ".py" else f"{name}-node"


def command(script: Path, *, newest: bool) -> tuple[list[str], dict[str, str]]:
    """How to run a script and the variables that this takes; installs what it needs.

    Raises CalledProcessError where npm fails.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    if script.suffix == ".mjs":
        return ["node", str(_node(newest) / script.name)], _OFFLINE
    settings = _OFFLINE | {"UV_CACHE_DIR": str(CACHE / "uv")}
    if wheels := os.environ.get("PIP_FIND_LINKS"):  # pip's own variable, which uv does not read
        settings["UV_FIND_LINKS"] = wheels
    if not newest:
        settings["UV_EXCLUDE_NEWER"] = f"{NEWEST}T23:59:59Z"
    uv = [sys.executable, "-m", "uv", "run", "--quiet", "--python", sys.executable]
    return [*uv, "--script", str(script)], settings


def _node(newest: bool) -> Path:
    """A copy of the scripts beside the packages that they import."""
    folder = CACHE / "node"
    shutil.copytree(HERE / "node", folder, dirs_exist_ok=True)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    if not newest:
        install += ["--before", NEWEST]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, text=True)
    return folder
