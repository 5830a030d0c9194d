"""`issun` as a package: what a wheel holds, and what importing it costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import issun
from issun.runtime.demonstration import EMBEDDED
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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build from, so that nothing is left in the project."""
    copy = tmp_path_factory.mktemp("source") / "copy"
    skipped = (".git", ".venv*", ".*_cache", ".hypothesis", "build", "dist", "demo")
    ignored = shutil.ignore_patterns(*skipped, "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """The files of the project."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        pytest.skip("the tests run outside a git checkout")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


def build(kind: str, source: Path, folder: Path) -> tuple[Path, str]:
    """Build a wheel or an sdist with the setuptools at hand; gives it and the build's output."""
    asked = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=source,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("packages are built with setuptools, which is not installed")
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1], done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, str]) -> Path:
    return built[0]


def test_the_wheel_is_small_and_holds_the_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.compress_size for entry in archive.infolist()}
    model = {f"issun/runtime/embedded/{file.name}" for file in EMBEDDED.iterdir()}
    assert model <= set(sizes)
    assert wheel.stat().st_size - sum(sizes[name] for name in model) <= 2_000_000
    assert {"issun/__init__.py", "issun/__main__.py", "issun/py.typed"} <= set(sizes)


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path, tracked: set[str]) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    root = {"__init__.py", "__main__.py", "py.typed"}
    folders = tuple(f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py"))
    results = "benchmarks/results/"
    package = {n for n in tracked if n.startswith(folders) and not n.startswith(results)}
    assert names == {f"issun/{name}" for name in package | root}


def test_the_build_warns_of_nothing_that_would_be_left_out(built: tuple[Path, str]) -> None:
    assert "would be ignored" not in built[1]
    assert "is absent from the `packages` configuration" not in built[1]


def test_the_sdist_is_the_whole_project(source: Path, tracked: set[str], tmp_path: Path) -> None:
    made, _ = build("sdist", source, tmp_path)
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - names == set()


def test_what_is_tracked_is_small(tracked: set[str]) -> None:
    beside = [name for name in tracked if not name.startswith("runtime/embedded/")]
    sizes = {name: (ROOT / name).stat().st_size for name in beside}
    written = (
        ".py",
        ".md",
        ".js",
        ".mjs",
        ".ts",
        ".css",
        ".po",
        ".toml",
        ".txt",
        ".yml",
    )  # by hand
    assert sum(sizes.values()) <= 6_200_000
    assert sum(size for name, size in sizes.items() if not name.endswith(written)) <= 960_000


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_the_wheel_chats_from_another_folder_without_a_network(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    command = [sys.executable, "-P", "-m", "issun.cli.main", "chat", "--seed", "1"]
    cut_off = ["unshare", "--net", "--map-root-user"]
    if not shutil.which("unshare") or _fails([*cut_off, "true"]):
        cut_off = []  # without rights, or on another system: then the network is there
    result = subprocess.run(
        [*cut_off, *command],
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
    shutil.unpack_archive(wheel, site, "zip")
    shown = "import issun, issun.cli; print(issun.__file__, issun.cli.__file__, issun.__version__)"
    package = site / "issun"
    expected = f"{package / '__init__.py'} {package / 'cli' / '__init__.py'} 0.1.0\n"
    for cwd in (ROOT, tmp_path):
        assert run("-c", shown, cwd=cwd, PYTHONPATH=str(site)) == expected
        assert run("-m", "issun", "--version", cwd=cwd, PYTHONPATH=str(site)) == "issun 0.1.0\n"
