"""Runs the blocks of one page in order, in a fresh folder, as a reader would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from issun.benchmarks.make_checkpoint import SHAPES, make_checkpoint
from issun.export import export
from tests.adapters import peft_adapter
from tests.documentation.environments import Environments
from tests.documentation.pages import ROOT, Block

ADDRESS = "127.0.0.1:8000"  # where pages say that the server is
LIMIT = 120.0  # seconds for a block
LIMIT_SLOW = 1800.0


class BlockError(Exception):
    """A block did not do what its page says."""


def make_materials(folder: Path) -> dict[str, Path]:
    """What annotations may put in the place of a real model: all of it is tiny and random."""
    checkpoint, bundle, adapter = (folder / n for n in ("checkpoint", "bundle", "adapter"))
    if not bundle.exists():
        make_checkpoint(checkpoint, SHAPES["gpt2"]["tiny"])
        peft_adapter(checkpoint, adapter)
        export(checkpoint, bundle)
    return {"$CHECKPOINT": checkpoint, "$BUNDLE": bundle, "$ADAPTER": adapter}


class PageRun:
    """One page's folder and its servers. Leaving the context ends what runs in the background."""

    def __init__(
        self, folder: Path, environments: Environments, materials: dict[str, Path]
    ) -> None:
        self._folder = folder / "page"
        self._home = folder / "home"
        self._folder.mkdir()
        self._home.mkdir()
        self._environments = environments
        self._materials = materials
        self._port = _free_port()
        self._python = ""  # the page's blocks of Python that the next one may continue
        self._background: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> PageRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._background:
            _end(process)

    def run(self, block: Block) -> str | None:
        """Run a block, or write its file. Returns why it could not be tried here, or None.

        Raises BlockError.
        """
        if block.file is not None:
            target = self._folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.code, encoding="utf-8")
        if not block.runs:
            return None
        programs = self._environments.programs(block.environment)
        if programs is None:
            return f"{block.environment} is not installed"
        for command in block.setup:
            self._finish(block, ["sh", "-e", "-c", command], programs)
        command = self._command(block, self._replaced(block), programs)
        if "background" in block.flags:
            self._start(block, command, programs)
        elif block.code.strip():
            self._finish(block, command, programs)
        return None

    def _replaced(self, block: Block) -> str:
        code = block.code
        for old, new in block.replacements:
            for name, path in self._materials.items():
                new = new.replace(name, path.as_posix())  # noqa: PLW2901
            code = code.replace(old, new)
        code = code.replace(ADDRESS, f"127.0.0.1:{self._port}")
        return re.sub(r"\bissun serve\b(?!.*--port)", f"issun serve --port {self._port}", code)

    def _command(self, block: Block, code: str, programs: Path) -> list[str]:
        if block.language == "sh":
            return ["sh", "-e", "-c", code]
        self._python = self._python + code if "continue" in block.flags else code
        script = self._folder / f"example_{block.line}.py"
        script.write_text(self._python, encoding="utf-8")
        return [str(programs / "python"), script.name]

    def _options(self, block: Block, programs: Path) -> dict[str, Any]:
        dropped = ("VIRTUAL_ENV", "PYTHONPATH", "LANG", "LANGUAGE", "ISSUN_LANG")
        kept = {k: v for k, v in os.environ.items() if k not in dropped and k[:3] != "LC_"}
        own = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._home),
            "ISSUN_CACHE": str(self._home / "packed"),
            "HF_HUB_OFFLINE": "1",
            "LANG": "C.UTF-8",
        }
        folder = self._checkout() if "checkout" in block.flags else self._folder
        return {"cwd": folder, "env": kept | own, "start_new_session": True}

    def _finish(self, block: Block, command: list[str], programs: Path) -> None:
        limit = LIMIT_SLOW if "slow" in block.flags else LIMIT
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._options(block, programs),
        )
        try:
            output = process.communicate(block.stdin.encode(), timeout=limit)[0].decode()
        except subprocess.TimeoutExpired:
            raise BlockError(f"{block.place} took more than {limit:.0f} s") from None
        finally:
            _end(process)
        shown = f"{block.code.rstrip()}\n--- printed:\n{output}"
        if bool(process.returncode) != ("fails" in block.flags):
            raise BlockError(f"{block.place} ended with {process.returncode}:\n{shown}")
        for text in block.shows:
            if text not in output:
                raise BlockError(f"{block.place} does not show {text!r}:\n{shown}")

    def _start(self, block: Block, command: list[str], programs: Path) -> None:
        log = (self._home / f"background-{block.line}").open("w+b")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            **self._options(block, programs),
        )
        self._background.append(process)
        until = time.monotonic() + LIMIT
        while not _listens(self._port):
            if process.poll() is not None or time.monotonic() > until:
                raise BlockError(f"{block.place} does not listen:\n{_read(log)}")
            time.sleep(0.1)

    def _checkout(self) -> Path:
        """A copy of the repository's files, without what git ignores."""
        copy = self._folder / "issun"
        if not copy.exists():
            listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True).stdout
            for name in names.decode().split("\0"):
                if name and (ROOT / name).is_file():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, copy / name)
        return copy


def run_page(run: PageRun, blocks: Iterable[Block]) -> list[str]:
    """Run blocks in order; returns those that could not be tried here, with the reason."""
    left_out = []
    for block in blocks:
        if reason := run.run(block):
            left_out.append(f"{block.place}: {reason}")
    return left_out


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a block with whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    process.wait()


def _read(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")
