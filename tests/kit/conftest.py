"""Kits of small wheels, made without a network."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from issun.kit import make_targets, write_kit
from tests.kit.wheelhouse import make_wheelhouse, pip_settings

THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """issun's stand-in; the wheels that it needs lie beside it."""
    return make_wheelhouse(tmp_path_factory.mktemp("wheels") / "house")


@pytest.fixture
def offline_pip(wheel: Path) -> Iterator[None]:
    """pip knows the wheels of the house alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pip_settings(wheel.parent).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def made_kit(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A kit for this computer, that no test changes."""
    kit = tmp_path_factory.mktemp("kits") / "usb"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in pip_settings(wheel.parent).items():
            patch.setenv(name, value)
        write_kit(None, kit, make_targets([], []), wheel=wheel)
    return kit


@pytest.fixture
def kit(tmp_path: Path, made_kit: Path) -> Path:
    """A copy of the kit in a folder whose name has a space and Japanese characters."""
    copy = tmp_path / "USB メモリー" / "会話 kit"
    shutil.copytree(made_kit, copy)
    return copy
