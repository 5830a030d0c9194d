"""The kit's folder: written beside its place, and put there whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from issun.kit.errors import KitError
from issun.kit.platforms import Target
from issun.kit.texts import notice, python_needed, readme
from issun.kit.wheels import download, own_wheel
from issun.runtime.demonstration import bundle_folder
from issun.runtime.errors import Notify
from issun.runtime.files import partial_folder, reason_of, user_path
from issun.runtime.manifest import (
    MANIFEST_NAME,
    JinjaTemplate,
    Manifest,
    read_manifest,
    verify_hashes,
)

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all

_SUPPORT = Path(__file__).with_name("support")
_LICENCES = ("licen", "notice", "copying")  # how the names of such files begin
_CHUNK = 1 << 20


def write_kit(
    bundle: str | Path | None,
    output: str | Path,
    targets: Sequence[Target],
    *,
    wheel: Path | None = None,
    progress: Progress = lambda stage, done, total: None,
    notify: Notify = lambda template, **values: None,
) -> int:
    """Write a folder that chats with `bundle` on each of `targets` without a network.

    Without a bundle it is the embedded model. `wheel` is issun's own, by default built from what
    issun was installed from. Nothing is at `output` until all of it is. Gives the kit's size in
    bytes. Raises KitError, and BundleError for a bundle that is not sound.
    """
    folder = bundle_folder(bundle)
    manifest = read_manifest(folder)
    target = _checked(user_path(output).resolve())
    verify_hashes(folder, manifest)
    with tempfile.TemporaryDirectory(prefix="issun-kit.") as made:
        work = Path(made)
        _check_space(target, _size(_sources(folder, manifest, work)))  # as yet without wheels
        issun = own_wheel(wheel, work)
        for one in targets:
            notify("Downloading the wheels for {target}.", target=one.name)
            download(one, issun, work / "wheels" / one.name, notify, extra=_extra(manifest))
        files = _sources(folder, manifest, work / "wheels")
        size = _size(files)
        _check_space(target, size)
        with _staged(target) as kit:
            _copy(files, kit, size, progress)
            _write_texts(kit, manifest, targets)
    return size


def _checked(target: Path) -> Path:
    """The target, unless it must not be written; raises KitError."""
    if not target.parent.is_dir():
        raise KitError("There is no folder {parent}.", parent=target.parent)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise KitError(
            "{target} exists and is not an empty folder: choose another folder.", target=target
        )
    if os.path.ismount(target):  # Path.is_mount fails on Windows before Python 3.12
        raise KitError(
            "{target} is a mount point: choose a new folder in it, such as {example}.",
            target=target,
            example=target / "issun",
        )
    return target


def _extra(manifest: Manifest) -> str:
    """The extra that a bundle with a `tokenizer.json` or a chat template needs."""
    uses = manifest.tokens.kind == "json" or isinstance(manifest.prompt, JinjaTemplate)
    return "models" if uses else ""


def _sources(bundle: Path, manifest: Manifest, wheels: Path) -> dict[str, Path]:
    """What the kit's files are copied from, by their paths in it."""
    licences = [p.name for p in bundle.iterdir() if p.name.lower().startswith(_LICENCES)]
    named = [MANIFEST_NAME, *manifest.files, *licences]
    files = {f"bundle/{name}": bundle / name for name in named if (bundle / name).is_file()}
    for path in sorted(wheels.rglob("*.whl")):
        files[f"wheels/{path.relative_to(wheels).as_posix()}"] = path
    return files | {"support/start.py": _SUPPORT / "start.py"}


def _size(files: dict[str, Path]) -> int:
    return sum(path.stat().st_size for path in files.values())


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise KitError(
            "{target} needs at least {needed:,} MB of disk space, but only {free:,} MB are free.",
            target=target,
            needed=-(-needed // 10**6),
            free=free // 10**6,
        )


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well; raises KitError."""
    try:
        with partial_folder(target) as folder:
            yield folder
            if target.exists():
                target.rmdir()  # empty, or it fails
            folder.rename(target)
    except OSError as error:
        raise KitError(
            "{target} cannot be written: {reason}", target=target, reason=reason_of(error)
        ) from error


def _copy(files: dict[str, Path], kit: Path, size: int, progress: Progress) -> None:
    done = 0
    for name, source in files.items():
        copy = kit / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as original, copy.open("xb") as file:
            while chunk := original.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress("copy", done, size)


def _write_texts(kit: Path, manifest: Manifest, targets: Sequence[Target]) -> None:
    """The texts and the launchers, each as the programs that read it want it."""
    _write(kit / "chat.sh", _launcher("chat.sh"))
    with suppress(OSError):  # of file systems without such a mark; `sh chat.sh` needs none
        (kit / "chat.sh").chmod(0o755)
    _write(kit / "chat.bat", _launcher("chat.bat"), newline="\r\n")
    # Editors on Windows know UTF-8 by its mark.
    for name, text in (("README.txt", readme(manifest, targets)), ("NOTICE.txt", notice(manifest))):
        _write(kit / name, text, encoding="utf-8-sig", newline="\r\n")
    _write(kit / "support" / "python-needed.txt", python_needed(targets))


def _launcher(name: str) -> str:
    return (_SUPPORT / name).read_text(encoding="ascii")


def _write(path: Path, text: str, *, encoding: str = "utf-8", newline: str = "\n") -> None:
    path.write_text(text, encoding=encoding, newline=newline)
