"""The README's examples of the server run as they are written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.readme import example
from tests.server.conftest import Running


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("sh")), reason="there is no curl")
def test_curl(server: Running) -> None:
    answer = json.loads(run(["sh", "-c", example("curl ", address=server.url)]))
    assert "富士山" in answer["choices"][0]["message"]["content"]


def test_the_openai_client(server: Running) -> None:
    script = example("from openai import OpenAI", address=server.url)
    assert "富士山" in run([sys.executable, "-X", "utf8", "-c", script])
