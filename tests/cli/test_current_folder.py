"""No process of issun's runs what lies in the current folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import issun

NAMES = ("numpy", "onnxruntime", "llguidance", "cpuinfo", "issun", "sentencepiece", "site", "json")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in whose modules leave a mark when they are imported."""
    for name in NAMES:
        text = "import os\nos.close(os.open(os.path.dirname(__file__) + '/MARK', os.O_CREAT))\n"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.sampled
@pytest.mark.parametrize(
    "command",
    [
        ["generate", "--instruction", "山は?", "--regex", "富士山|エベレスト"],
        ["generate", "--instruction", "山は?", "--choices", "富士山", "--choices", "北岳"],
        ["bench", "EMBEDDED", "--prefill", "8", "--decode", "0", "--new-tokens", "2"],
    ],
    ids=" ".join,
)
def test_modules_in_the_current_folder_are_not_imported(trap: Path, command: list[str]) -> None:
    embedded = Path(__file__).parents[2] / "runtime" / "embedded"
    arguments = [str(embedded) if part == "EMBEDDED" else part for part in command]
    if command[0] == "bench":
        arguments += ["--rounds", "1", "--no-turn", "--memory", "none", "-o", "found.json"]
    done = issun(*arguments)
    assert done.code == 0, done.err
    assert not (trap / "MARK").exists()
    assert str(trap) not in sys.path
