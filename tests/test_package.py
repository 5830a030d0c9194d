"""`issun` as a package: what a wheel holds, and what importing it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import issun
from issun.runtime.model import EMBEDDED
from tests.cli.conftest import environment

ROOT = Path(__file__).parent.parent


def run(*arguments: str | Path, cwd: Path, **changes: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment(**changes),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_version_is_that_of_the_distribution() -> None:
    assert issun.__version__ == version("issun") == "0.1.0"
    with pytest.raises(AttributeError, match="module 'issun' has no attribute 'versoin'"):
        _ = issun.versoin  # type: ignore[attr-defined, unused-ignore]


def test_importing_it_imports_nothing_else(tmp_path: Path) -> None:
    asked = "import sys; before = set(sys.modules); import issun; print(*set(sys.modules) - before)"
    assert run("-c", asked, cwd=tmp_path).split() == ["issun"]


def test_the_package_is_a_command(tmp_path: Path) -> None:
    for cwd in (ROOT, tmp_path):
        assert run("-m", "issun", "--version", cwd=cwd) == "issun 0.1.0\n"
        assert run("-m", "issun", "generate", "--help", cwd=cwd).startswith("Usage: issun generate")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the project."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    skipped = shutil.ignore_patterns(".*", "build", "dist", "demo", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=skipped)
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode and "setuptools" in made.stderr:
        pytest.skip(f"no wheel can be built without setuptools: {made.stderr[-200:]}")
    assert made.returncode == 0, made.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_is_small_and_holds_the_model(wheel: Path) -> None:
    assert wheel.stat().st_size <= 12_000_000
    names = zipfile.ZipFile(wheel).namelist()
    for file in EMBEDDED.iterdir():
        assert f"issun/runtime/embedded/{file.name}" in names
    assert not [name for name in names if name.startswith(("tests/", "issun/tests/"))]
    supported = {path.name for path in (ROOT / "kit" / "support").iterdir() if path.is_file()}
    assert {f"issun/kit/support/{name}" for name in supported} <= set(names)
    assert {"issun/__init__.py", "issun/__main__.py", "issun/py.typed"} <= set(names)


def test_the_wheel_chats_from_another_folder_without_a_network(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-P", "-m", "issun.cli.main", "chat", "--seed", "1"]
    cut_off = ["unshare", "--net", "--map-root-user"]
    probe = subprocess.run([*cut_off, "true"], capture_output=True, check=False)
    result = subprocess.run(
        [*(cut_off if probe.returncode == 0 else []), *command],
        input="日本で一番高い山は?\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "富士山" in result.stdout


def test_an_installed_wheel_is_the_package_in_every_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    shown = "import issun, issun.cli; print(issun.__file__, issun.cli.__file__, issun.__version__)"
    expected = f"{site}/issun/__init__.py {site}/issun/cli/__init__.py 0.1.0\n"
    for cwd in (ROOT, tmp_path):
        assert run("-c", shown, cwd=cwd, PYTHONPATH=str(site)) == expected
        assert run("-m", "issun", "--version", cwd=cwd, PYTHONPATH=str(site)) == "issun 0.1.0\n"
