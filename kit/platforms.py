"""The computers that a kit can be for, as pip and as environment markers name them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import cast

from packaging.markers import default_environment

from issun.kit.support.start import this_platform
from issun.runtime.errors import ParameterError, check_choice

# glibc 2.28 (2018) is the oldest that onnxruntime's wheels run on. pip counts no tag down by itself
# but macOS's, and onnxruntime's are for macOS 14.
_GLIBC_MINORS = range(28, 4, -1)
_MACOS = ("macosx_14_0_arm64",)


@dataclass(frozen=True)
class Platform:
    """pip's tags, best first, and the values of the markers that depend on the system."""

    tags: tuple[str, ...]
    markers: dict[str, str]


def _platform(tags: tuple[str, ...], os_name: str, system: str, machine: str) -> Platform:
    sys_platform = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}[system]
    markers = {
        "os_name": os_name,
        "sys_platform": sys_platform,
        "platform_system": system,
        "platform_machine": machine,
        "platform_release": "",
        "platform_version": "",
    }
    return Platform(tags, markers)


def _linux(machine: str) -> Platform:
    tags = (*(f"manylinux_2_{minor}" for minor in _GLIBC_MINORS), "manylinux2014")
    return _platform(tuple(f"{tag}_{machine}" for tag in tags), "posix", "Linux", machine)


PLATFORMS = {
    "linux-x86_64": _linux("x86_64"),
    "linux-arm64": _linux("aarch64"),
    "macos-arm64": _platform(_MACOS, "posix", "Darwin", "arm64"),
    "windows-x86_64": _platform(("win_amd64",), "nt", "Windows", "AMD64"),
    "windows-arm64": _platform(("win_arm64",), "nt", "Windows", "ARM64"),
}


@dataclass(frozen=True)
class Target:
    """One platform with one version of CPython, such as `linux-x86_64` and `3.12`.

    Raises ParameterError for a platform that is not in PLATFORMS, or no such version.
    """

    platform: str
    python: str

    def __post_init__(self) -> None:
        """Check both."""
        check_choice("platform", self.platform, PLATFORMS)
        if not re.fullmatch(r"3\.[1-9][0-9]*", self.python):
            raise ParameterError(
                "python is {value!r}: give the first two numbers of a version, such as 3.12.",
                value=self.python,
            )

    @property
    def name(self) -> str:
        """As the kit's folder of wheels is called, and `start.py` looks for it."""
        return f"{self.platform}-{self.python}"

    def pip_options(self) -> list[str]:
        """What makes `pip download` choose wheels for this target."""
        tags = PLATFORMS[self.platform].tags
        options = ["--python-version", self.python, "--implementation", "cp"]
        return [*options, *(f"--platform={tag}" for tag in tags)]

    def markers(self) -> dict[str, str]:
        """The environment in which a requirement's marker counts there."""
        here = cast(dict[str, str], default_environment())
        versions = {"python_version": self.python, "python_full_version": f"{self.python}.0"}
        cpython = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
        system = PLATFORMS[self.platform].markers
        return here | versions | cpython | system | {"extra": ""}


def make_targets(platforms: list[str], pythons: list[str]) -> list[Target]:
    """Every platform with every Python; by default this computer's.

    Raises ParameterError as Target does.
    """
    this_python = f"{sys.version_info.major}.{sys.version_info.minor}"
    combined = [
        Target(platform, python)
        for platform in platforms or [this_platform()]
        for python in pythons or [this_python]
    ]
    return list(dict.fromkeys(combined))
