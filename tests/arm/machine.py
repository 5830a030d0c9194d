"""An emulated 64-bit ARM machine below build/arm: Debian's Python, and wheels for it.

qemu-user looks for absolute paths below the folder of its option -L first. So every kind of CPU has
a folder with links to the system and with a /proc/cpuinfo of its own; ONNX Runtime crashes on the
host's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "arm"
PACKAGE = ROOT / "build" / "package"  # made by the Makefile
READY = FOLDER / "ready"

# qemu's name of a CPU -> (part, features) as /proc/cpuinfo shows them. The Raspberry Pi 4 has
# cores of the first kind, the Raspberry Pi 5 of the second; "max" has all that qemu can emulate.
CPUS = {
    "cortex-a72": ("0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
    ),
    "max": (
        "0xd4f",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp sve sve2 i8mm bf16",
    ),
}
_EXTRA = "llguidance"  # constraints
_PLATFORMS = ("manylinux_2_31_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64")


class SetUpError(Exception):
    """This machine cannot emulate another one."""


def set_up() -> None:
    """Make the folder, unless it is there; raises SetUpError."""
    if READY.exists():
        return
    for program, package in (
        ("qemu-aarch64", "qemu-user"),
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
    ):
        if shutil.which(program) is None:
            raise SetUpError(f"it needs {program} (Debian's package {package})")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    _download_system()
    _download_wheels()
    for cpu, (part, features) in CPUS.items():
        _make_cpu(cpu, part, features)
    READY.touch()


def command(cpu: str, *arguments: str | Path, page_size: int = 4096) -> list[str]:
    """The command that runs the emulated Python on a kind of CPU."""
    prefix, python = FOLDER / "cpu" / cpu, FOLDER / "root" / "usr" / "bin" / "python3"
    emulator = ("qemu-aarch64", "-cpu", cpu, "-p", str(page_size), "-L", str(prefix))
    return [*emulator, str(python.resolve()), *map(str, arguments)]


def environment(cpu: str, cache: Path | None = None) -> dict[str, str]:
    """The environment of the emulated Python; `cache` is the folder of packed weights."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE, FOLDER / "site"))),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ISSUN_CACHE": str(cache or ""),
        # The kernel cannot run the emulated Python itself; issun starts it for constraints.
        "ISSUN_TEST_PYTHON": str(FOLDER / "cpu" / cpu / "python"),
    }


def _download_system() -> None:
    """Unpack Debian's Python for arm64, with a package index of its own."""
    state, cache = FOLDER / "apt" / "state", FOLDER / "apt" / "cache"
    (state / "lists" / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    status = FOLDER / "apt" / "status"
    status.touch()  # nothing is installed
    modern = Path("/etc/apt/sources.list.d/debian.sources")
    sources = modern if modern.exists() else Path("/etc/apt/sources.list")
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": state,
        "Dir::State::status": status,
        "Dir::Cache": cache,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    _run(*apt, "update")
    wanted = ("python3", "libstdc++6")
    _run(*apt, "install", "-y", "--no-install-recommends", "--download-only", *wanted)
    for package in sorted((cache / "archives").glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(FOLDER / "root"))


def _download_wheels() -> None:
    """Unpack the wheels of what issun needs, for the Python that was unpacked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    python = (FOLDER / "root" / "usr" / "bin" / "python3").resolve().name.removeprefix("python")
    wheels = FOLDER / "wheels"
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"),
        *(part for platform in _PLATFORMS for part in ("--platform", platform)),
        *("--implementation", "cp", "--python-version", python, "--dest", str(wheels)),
        *project["project"]["dependencies"],
        _EXTRA,
    )
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(FOLDER / "site")
    shutil.rmtree(wheels)


def _make_cpu(cpu: str, part: str, features: str) -> None:
    folder = FOLDER / "cpu" / cpu
    (folder / "proc").mkdir(parents=True)
    for name in ("lib", "usr", "etc"):
        (folder / name).symlink_to(Path("..", "..", "root", name))
    fields = (
        *(("BogoMIPS", "108.00"), ("Features", features), ("CPU implementer", "0x41")),
        *(("CPU architecture", "8"), ("CPU variant", "0x0"), ("CPU part", part)),
        ("CPU revision", "1"),
    )
    lines = "".join(f"{name}\t: {value}\n" for name, value in fields)
    cores = "".join(f"processor\t: {number}\n{lines}\n" for number in range(2))
    (folder / "proc" / "cpuinfo").write_text(cores, encoding="ascii")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.join(command(cpu))} "$@"\n', encoding="utf-8")
    python.chmod(0o755)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"it exited with {done.returncode}"]
        raise SetUpError(f"{Path(words[0]).name} failed: {reason[-1]}")
