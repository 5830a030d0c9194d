"""Which computers a kit can be for."""

from __future__ import annotations

import platform
import sys
import sysconfig

import pytest

from issun.cli.kit import PLATFORMS as SHOWN
from issun.kit import PLATFORMS, Target, make_targets
from issun.kit.support.start import this_platform
from issun.runtime import ParameterError
from tests.kit.conftest import THIS_PYTHON


def test_the_help_names_every_platform() -> None:
    assert SHOWN.split(", ") == list(PLATFORMS)


@pytest.mark.parametrize(
    ("system", "machine", "build", "expected"),
    [
        ("linux", "x86_64", "linux-x86_64", "linux-x86_64"),
        ("linux", "aarch64", "linux-aarch64", "linux-arm64"),
        ("darwin", "arm64", "macosx-14.0-arm64", "macos-arm64"),
        ("darwin", "x86_64", "macosx-10.9-universal2", "macos-x86_64"),
        ("win32", "AMD64", "win-amd64", "windows-x86_64"),
        ("win32", "ARM64", "win-arm64", "windows-arm64"),
        ("win32", "ARM64", "win-amd64", "windows-x86_64"),  # Python's own kind counts
        ("win32", "AMD64", "win32", "windows32"),
    ],
)
def test_this_platform(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, build: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sysconfig, "get_platform", lambda: build)
    assert this_platform() == expected


def test_without_a_choice_it_is_this_computer() -> None:
    if this_platform() not in PLATFORMS:
        pytest.skip(f"onnxruntime has no wheels for {this_platform()}")
    assert make_targets([], []) == [Target(this_platform(), THIS_PYTHON)]


def test_every_platform_is_combined_with_every_python() -> None:
    made = make_targets(["windows-x86_64", "linux-arm64"], ["3.13", "3.14", "3.13"])
    assert [one.name for one in made] == [
        "windows-x86_64-3.13",
        "windows-x86_64-3.14",
        "linux-arm64-3.13",
        "linux-arm64-3.14",
    ]


@pytest.mark.parametrize("python", ["3", "3.12.1", "3.", "3.09", "cp312", "３.１２", ""])
def test_a_python_that_is_no_version(python: str) -> None:
    with pytest.raises(ParameterError, match=r"such as 3\.12"):
        make_targets(["linux-x86_64"], [python])


@pytest.mark.parametrize("name", ["macos-x86_64", "linux", "win_amd64", ""])
def test_an_unknown_platform(name: str) -> None:
    with pytest.raises(ParameterError, match="must be one of linux-x86_64, linux-arm64, macos"):
        make_targets([name], [])


def test_pip_is_asked_for_wheels_of_glibc_2_28_and_older() -> None:
    options = Target("linux-arm64", "3.12").pip_options()
    tags = [one.removeprefix("--platform=") for one in options if one.startswith("--platform=")]
    assert tags[0] == "manylinux_2_28_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64"} < set(tags)
    assert options[:4] == ["--python-version", "3.12", "--implementation", "cp"]
