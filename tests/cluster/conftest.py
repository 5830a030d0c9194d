"""Inputs, and the command as a process that can be disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import environment, fuji, make_scripted
from tests.conftest import Bundles

__all__ = ["fuji", "make_scripted"]  # fixtures
COMMAND = (sys.executable, "-P", "-m", "issun.cli.main", "batch")
WORDS = ("山", "川", "日本で一番高い山は?", "富士", "3たす4は?", "今日は")


def make_rows(count: int, tokens: int = 12) -> list[dict[str, Any]]:
    """Chats, continued texts, scored texts, and rows that are refused."""
    rows = []
    for n in range(count):
        text = f"{WORDS[n % len(WORDS)]}{n}"
        url, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}
        if n % 5 == 1:
            url, body = "/v1/completions", {"prompt": text, "min_tokens": tokens}
        body |= {"max_tokens": tokens}
        if n % 7 == 3:
            url, body = "/v1/completions", {"prompt": text, "max_tokens": 0, "echo": True}
            body |= {"logprobs": 2}
        if n % 11 == 10:
            body |= {"temperature": 9}
        rows.append({"custom_id": f"row {n}", "method": "POST", "url": url, "body": body})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def exact(bundle: Bundles) -> Path:
    """A bundle whose answers do not depend on what is answered beside them."""
    return bundle("head-8", "int8", kv_cache="int8")


class Run:
    """`issun batch` as a process."""

    def __init__(
        self, *arguments: str | Path, command: Sequence[str] = COMMAND, **options: Any
    ) -> None:
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=options.pop("env", environment()),
            **options,
        )

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        try:
            children = psutil.Process(self._process.pid).children()
            return [c for c in children if "spawn_main" in " ".join(c.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, journal: Path, lines: int) -> None:
        """Wait until the journal has so many lines, or the run has ended."""
        while self.running and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """The exit code and stderr."""
        out, err = self._process.communicate(timeout=300)
        assert out == ""
        return self._process.returncode, err


@pytest.fixture
def start() -> Iterator[Callable[..., Run]]:
    """`start(*arguments)` runs the command; what is left of it ends with the test."""
    started: list[Run] = []

    def run(*arguments: str | Path, **options: Any) -> Run:
        started.append(Run(*arguments, **options))
        return started[-1]

    yield run
    for each in started:
        if each.running:
            os.kill(each._process.pid, signal.SIGKILL)
            each.end()
