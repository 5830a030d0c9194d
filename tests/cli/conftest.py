"""Runs the command line as a user's shell does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from issun.export import export
from tests.scripted import write_scripted

ANSWER = "富士山です。"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """The environment without what chooses a language, or a width other than the terminal's."""
    chosen = ("LANG", "COLUMNS", "LINES")  # pytest-xdist sets the width
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LC_") and k not in chosen}
    return kept | {"LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1"} | changes


def issun(*arguments: str | Path | bytes, stdin: str | bytes = b"", **changes: str) -> Result:
    """Run `issun`; stdin is a pipe."""
    command = [sys.executable, "-P", "-m", "issun.cli.main", *arguments]
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        command,
        input=data,
        capture_output=True,
        env=environment(**changes),
        timeout=120,
        check=False,
    )
    out, err = (text.decode().replace(os.linesep, "\n") for text in (done.stdout, done.stderr))
    return Result(done.returncode, out, err)


@pytest.fixture(scope="session")
def make_scripted(tmp_path_factory: pytest.TempPathFactory, spiece: Path) -> Callable[..., Path]:
    """`make_scripted(answer, endless=False)`: a checkpoint and a bundle that answers with it."""

    def make(answer: str, **options: bool | int) -> Path:
        folder = tmp_path_factory.mktemp("scripted")
        write_scripted(folder / "checkpoint", spiece, answer, **options)
        export(folder / "checkpoint", folder / "bundle")
        return folder / "bundle"

    return make


@pytest.fixture(scope="session")
def fuji(make_scripted: Callable[..., Path]) -> Path:
    """A bundle that answers everything with 富士山です。"""
    return make_scripted(ANSWER)


@pytest.fixture(scope="session")
def endless(make_scripted: Callable[..., Path]) -> Path:
    """A bundle that never ends its answer."""
    return make_scripted(ANSWER, endless=True, n_positions=16384)


def idle_share(pid: int) -> float:
    """What a process that waits takes of one CPU, over 3 seconds, after one second of rest."""
    process = psutil.Process(pid)
    time.sleep(1)  # what is read ahead after an answer is not waiting
    before = sum(process.cpu_times()[:2])
    time.sleep(3)
    return float(sum(process.cpu_times()[:2]) - before) / 3
