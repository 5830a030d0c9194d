"""The whole way: `issun kit` with the real wheels, and its chat with the network cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment, issun
from tests.kit.test_start import ASKED, chat, isolated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real_kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of the embedded model for this computer, with issun's wheel built from the checkout."""
    folder = tmp_path_factory.mktemp("real")
    probe = [
        "download",
        "-q",
        "--no-deps",
        "--retries",
        "0",
        "--dest",
        str(folder / "probe"),
        "pip",
    ]
    found = subprocess.run(
        [sys.executable, "-m", "pip", *probe],
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        check=False,
    )
    if found.returncode:
        pytest.skip(f"no package index can be reached: {found.stderr.strip()[-200:]}")
    kit = folder / "USB メモリー" / "会話 kit"
    kit.parent.mkdir()
    made = issun("kit", "-o", kit)
    assert (made.code, made.out) == (0, ""), made.err
    return kit


def test_it_answers_with_the_network_cut_off(real_kit: Path) -> None:
    around = isolated("--net")
    (real_kit / "chat.sh").chmod(0o644)  # FAT keeps neither this mark nor symbolic links
    first = chat(real_kit, "--seed", "1", "--no-history", around=around)
    assert not [path for path in real_kit.rglob("*") if path.is_symlink()]
    assert first.code == 0, first.err
    assert "富士山" in first.out
    second = chat(real_kit, "--temperature", "0", around=around)
    assert (second.code, second.err) == (0, "")
    assert "富士山" in second.out


def test_a_proxy_that_refuses_is_not_asked(real_kit: Path) -> None:
    refusing = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    answered = chat(real_kit, "--seed", "1", **refusing)
    assert answered.code == 0, answered.err
    assert "富士山" in answered.out
    assert ASKED not in answered.out


def test_the_wheels_are_of_issun_alone(real_kit: Path) -> None:
    (wheels,) = (real_kit / "wheels").iterdir()
    names = {path.name.partition("-")[0] for path in wheels.iterdir()}
    assert {"issun", "pip", "numpy", "onnxruntime", "sentencepiece", "typer"} <= names
    assert not names & {"torch", "transformers", "starlette", "pytest", "setuptools"}
