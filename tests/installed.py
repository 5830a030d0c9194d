"""Tries a wheel as a user meets it: `python -m tests.installed WHEEL`.

The wheel is installed into an empty environment, without extras, and used from an empty folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

# Arguments of Python, and what their output contains.
COMMANDS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("-m", "issun", "--version"), "issun "),
    (("-m", "issun", "--help"), "generate"),
    (("-m", "issun", "inspect", "--verify"), "network: gpt2"),
    (("-m", "issun", "generate", "日本で一番高い山は?", "--temperature", "0"), "富士山"),
    (("-m", "issun", "bench", "fit", "--ram", "2GB"), "issun int4"),
    (("-m", "issun", "cache", "list"), ""),
    (("-c", "from issun.runtime import Conversation, Model; print(Model)"), "Model"),
    (("-W", "error", "-c", "import issun; print(issun.__file__)"), "site-packages"),
)


def main() -> None:
    """Install the wheel, run every command, and exit with 1 where one does something else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel.resolve()
    with tempfile.TemporaryDirectory() as folder:
        python = _install(wheel, Path(folder) / "venv")
        empty = Path(folder) / "empty"
        empty.mkdir()
        wrong = [shown for shown in (_try(python, empty, *c) for c in COMMANDS) if shown]
    print("\n".join(wrong) or f"{wheel.name}: all {len(COMMANDS)} commands work.")
    sys.exit(bool(wrong))


def _install(wheel: Path, folder: Path) -> Path:
    """Make an environment with nothing but the wheel and what it needs; gives its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True)
    return python


def _try(python: Path, folder: Path, arguments: tuple[str, ...], expected: str) -> str:
    """What is wrong with the command, or nothing."""
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=os.environ | {"ISSUN_LANG": "en", "PYTHONUTF8": "1", "ISSUN_CACHE": str(folder)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == 0 and expected in done.stdout:
        return ""
    return f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    main()
