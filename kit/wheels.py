"""issun's wheel, and those that it needs on another computer: all by pip."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import Parser
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from issun.kit.errors import KitError
from issun.kit.platforms import Target
from issun.runtime.errors import Notify
from issun.runtime.files import user_path

_FETCHED = re.compile(r"\s*(?:Downloading|Using cached) (\S+\.whl) \((.+)\)")
_LARGEST_SOURCE = 1 << 20  # bytes of a file beside pyproject.toml; bundles may lie there too


def own_wheel(given: Path | None, work: Path) -> Path:
    """issun's wheel: the given one, or one that is built in the empty folder `work`.

    It is built from the checkout that issun was installed from; of an issun that was installed
    from a wheel's file, it is that file. Raises KitError where there is none, or it is not issun's.
    """
    if given is not None:
        return _checked(user_path(given))
    url = json.loads(distribution("issun").read_text("direct_url.json") or "{}").get("url", "")
    origin = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
    if origin is not None and origin.is_file():
        return _checked(origin)
    if origin is None or not (origin / "pyproject.toml").is_file():
        raise KitError(
            "The checkout that issun was installed from is gone: give issun's wheel with --wheel."
        )
    _copy_sources(origin, work / "source")
    command = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(work), str(work / "source")]
    if reason := _run_pip(command):
        raise KitError("issun's wheel cannot be built: {reason}", reason=reason)
    return next(work.glob("*.whl"))


def download(target: Target, issun: Path, folder: Path, notify: Notify, *, extra: str = "") -> None:
    """Put into the new `folder` the wheels of issun, of all that it needs there, and pip's own.

    `extra` is the one of issun's extras that the bundle needs.

    pip counts the markers of requirements for the computer that it runs on. Those that count for
    `target` are asked for until none is missing. Raises KitError.
    """
    folder.mkdir(parents=True)
    wanted = ["pip", f"{issun}[{extra}]" if extra else str(issun)]
    while wanted:
        options = ["--only-binary", ":all:", "--dest", str(folder), *target.pip_options()]
        if reason := _run_pip(["download", *options, *wanted], notify):
            raise KitError(
                "The wheels for {target} cannot be downloaded: {reason}",
                target=target.name,
                reason=reason,
            )
        wanted = _missing(folder, target)


def _checked(path: Path) -> Path:
    """A wheel of issun; raises KitError for any other file."""
    try:
        name = parse_wheel_filename(path.name)[0]
    except InvalidWheelFilename:
        name = None
    if not path.is_file():
        raise KitError("There is no file {path}.", path=path)
    if name != "issun" or not zipfile.is_zipfile(path):
        raise KitError("{path} is not a wheel of issun (issun-….whl).", path=path)
    return path.resolve()


def _copy_sources(checkout: Path, target: Path) -> None:
    """Copy what a wheel is built of: building in the checkout would leave files there."""
    target.mkdir()
    for path in checkout.iterdir():
        if path.name.startswith(".") or path.name in ("build", "dist"):
            continue
        packages = (path / "__init__.py", *path.glob("*/__init__.py"))
        if any(package.is_file() for package in packages):
            shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.is_file() and path.stat().st_size <= _LARGEST_SOURCE:
            shutil.copyfile(path, target / path.name)


def _missing(folder: Path, target: Target) -> list[str]:
    """The requirements of the wheels in `folder` that count for `target`, and have no wheel."""
    wheels = list(folder.glob("*.whl"))
    names = {parse_wheel_filename(path.name)[0] for path in wheels}
    markers = target.markers()
    missing = set()
    for wheel in wheels:
        for one in _requirements(wheel):
            if canonicalize_name(one.name) in names:
                continue
            if one.marker is None or one.marker.evaluate(markers):
                one.marker = None
                missing.add(str(one))
    return sorted(missing)


def _requirements(wheel: Path) -> Iterator[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        metadata = Parser().parsestr(archive.read(name).decode())
    for text in metadata.get_all("Requires-Dist", []):
        yield Requirement(text)


def _run_pip(arguments: Sequence[str], notify: Notify | None = None) -> str:
    """Run pip, and name each wheel that it fetches; gives why it failed, or nothing."""
    command = [*_pip(), *arguments, "--disable-pip-version-check", "--no-input"]
    lines = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            lines.append(line.strip())
            if notify and (fetched := _FETCHED.match(line)):
                notify("  {wheel} ({size})", wheel=fetched[1], size=fetched[2])
    if not process.returncode:
        return ""
    errors = [line for line in lines if line.lower().startswith("error")]
    reason = (errors or lines or [f"exit code {process.returncode}"])[-1].removeprefix("ERROR: ")
    if any("Retrying" in line for line in lines):
        reason += " (the package index could not be reached)"
    return reason


def _pip() -> list[str]:
    """The command of this interpreter's pip, or of uv's; raises KitError without either."""
    if find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise KitError("This Python has no pip: install it with `python -m ensurepip`, or install uv.")
