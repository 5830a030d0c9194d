"""Starts the chat of an offline kit; the first time it sets issun up from the kit's wheels.

A kit holds a copy of this file, which runs before issun is installed. So it uses Python's standard
library alone, and its messages are in Japanese and in English. The environment is a folder that
`pip install --target` fills, since a virtual environment needs symbolic links, which a USB stick's
file system may not have, and a module that some systems package apart, as they do pip.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_ROOM = 4  # an environment's size in that of its wheels, at most, with what pip has beside it
_STALE = 3600  # seconds: an unfinished environment of this age was left by a start that was killed


class Place(NamedTuple):
    """A folder for environments; one outside the kit must belong to this user alone."""

    folder: Path
    inside: bool

    def holds(self, name: str) -> bool:
        """Whether an environment of that name is here, and may be used."""
        try:
            return (self.folder / name).is_dir() and self.may_run()
        except OSError:
            return False

    def may_run(self) -> bool:
        """Whether code in the folder, which exists, is to be trusted and may be executed."""
        if sys.platform == "win32":
            return True
        found = self.folder.stat()
        if not self.inside and (found.st_uid != os.getuid() or found.st_mode & 0o022):
            return False
        return not os.statvfs(self.folder).f_flag & getattr(os, "ST_NOEXEC", 0)

    def why_not(self, needed: int) -> str:
        """Why no environment of `needed` bytes can be made here; nothing where it can."""
        reason = self._try(needed)
        if reason:
            with suppress(OSError):  # it was there before, and is not empty
                self.folder.rmdir()
        return reason

    def _try(self, needed: int) -> str:
        try:
            self.folder.mkdir(mode=0o777 if self.inside else 0o700, parents=True, exist_ok=True)
            probe = self.folder / f"{os.getpid()}.partial"
            probe.mkdir()
            probe.rmdir()
            if not self.may_run():
                return "プログラムを実行できません / programs may not run from there"
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            return error.strerror or str(error)
        if free < needed:
            return f"{needed // 10**6} MB が必要 (空き {free // 10**6} MB) / not enough space"
        return ""


def main() -> None:
    """Set up what is not there yet, then chat; the arguments are those of `issun chat`."""
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(encoding="utf-8", errors="replace")
    kit = Path(__file__).resolve().parent.parent
    if sys.argv[1:] == ["--fits"]:  # asked by the launchers of each Python that they find
        sys.exit(not _wheels(kit).is_dir())
    try:
        environment = set_up(kit)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.path.insert(0, str(environment))
    sys.argv = ["issun", "chat", str(kit / "bundle"), *sys.argv[1:]]
    from issun.__main__ import main as run_issun  # noqa: PLC0415

    run_issun()


def this_platform() -> str:
    """This computer and the kind of its Python, as the kit's folders of wheels name them."""
    if sys.platform == "win32":
        return sysconfig.get_platform().replace("win", "windows").replace("amd64", "x86_64")
    system = {"darwin": "macos"}.get(sys.platform, sys.platform)
    machine = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{system}-{machine}"


def set_up(kit: Path) -> Path:
    """The folder in which the kit's wheels are installed for this Python.

    Ends the program where the kit has none for it, and where they cannot be installed.
    """
    wheels = _wheels(kit)
    if not wheels.is_dir():
        known = ", ".join(sorted(path.name for path in wheels.parent.iterdir()))
        raise _stopped(
            f"このキットは {known} 用です。このパソコンの Python は {wheels.name} です。",
            f"This kit is for {known}; this computer's Python is {wheels.name}.",
        )
    sizes = {path.name: path.stat().st_size for path in sorted(wheels.glob("*.whl"))}
    # Kits with other wheels may share a folder outside them.
    name = f"{wheels.name}-{hashlib.sha256(repr(sizes).encode()).hexdigest()[:8]}"
    places = list(_places(kit))
    for place in places:
        if place.holds(name):
            return place.folder / name
    reasons = {}
    for place in places:
        reasons[place.folder] = place.why_not(_ROOM * sum(sizes.values()))
        if not reasons[place.folder]:
            return _install(wheels, place.folder / name)
    listed = "\n".join(f"  {folder}: {reason}" for folder, reason in reasons.items())
    raise _stopped(
        "issun を展開できる場所がありません。", f"There is no place to set issun up in.\n{listed}"
    )


def _wheels(kit: Path) -> Path:
    """The folder of wheels for this computer and Python, which a kit may have or not."""
    return kit / "wheels" / f"{this_platform()}-{sys.version_info.major}.{sys.version_info.minor}"


def _places(kit: Path) -> Iterator[Place]:
    """Where the environment may be: in the kit, beside it, in the user's cache."""
    yield Place(kit / "environment", inside=True)
    yield Place(kit.with_name(f"{kit.name}-environment"), inside=False)
    caches = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}
    chosen = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    with suppress(RuntimeError):  # of a user without a home
        cache = Path(chosen or caches.get(sys.platform, "~/.cache")).expanduser()
        yield Place(cache / "issun" / "kits", inside=False)


def _install(wheels: Path, environment: Path) -> Path:
    """Install the wheels beside `environment`, which gets its name once it is whole."""
    print(
        "初回の準備をしています (1 分ほどかかります)…\n"
        "Setting issun up, which happens once and takes about a minute…",
        file=sys.stderr,
        flush=True,
    )
    with suppress(OSError):
        for left in environment.parent.glob("*.partial"):
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left)
    partial = environment.with_name(f"{environment.name}.{os.getpid()}.partial")
    try:
        (partial / "tmp").mkdir(parents=True)
        _run_pip(wheels, partial / "new", partial / "tmp")
        (partial / "new").rename(environment)
    except OSError as error:
        if not environment.is_dir():  # unless another start was faster
            raise _failed(error.strerror or str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return environment


def _run_pip(wheels: Path, target: Path, work: Path) -> None:
    """Install issun into `target` with the kit's pip, or end the program with its reason."""
    (pip,) = wheels.glob("pip-*.whl")
    extra = "[models]" if any(wheels.glob("tokenizers-*.whl")) else ""  # the bundle needs it
    # Settings of this computer, such as constraints, must not change what is installed.
    settings = {"PIP_CONFIG_FILE": os.devnull}
    settings |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(work))
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-X", "utf8", str(pip / "pip"), "install", f"issun{extra}"),
            *("--no-index", "--find-links", str(wheels), "--target", str(target)),
            *("--only-binary", ":all:", "--no-compile", "--no-cache-dir", "--isolated"),
            *("--quiet", "--disable-pip-version-check", "--no-warn-script-location"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | settings,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip: {done.returncode}"]
        raise _failed(next((line for line in lines if line.startswith("ERROR")), lines[-1]))


def _failed(reason: str) -> SystemExit:
    return _stopped(
        f"issun を展開できませんでした: {reason}", f"issun could not be set up: {reason}"
    )


def _stopped(japanese: str, english: str) -> SystemExit:
    """Print what the user can mend; raising what this returns ends the program."""
    print(japanese, english, sep="\n", file=sys.stderr)
    return SystemExit(2)


if __name__ == "__main__":
    main()
