"""The site's folder: written beside its place, and put there whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from issun.runtime.demonstration import bundle_folder, is_demonstration
from issun.runtime.errors import Notify
from issun.runtime.files import partial_folder, reason_of, user_path
from issun.runtime.manifest import (
    MANIFEST_NAME,
    JinjaTemplate,
    Manifest,
    read_manifest,
    verify_hashes,
)
from issun.web.bundle import WebBundle
from issun.web.errors import WebError
from issun.web.notices import notice_files
from issun.web.packages import JINJA, ONNXRUNTIME, package_files
from issun.web.page import page_files, service_worker, to_json
from issun.web.supported import check_supported

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all

_DESCRIPTION = "site.json"
_GRAPH = "bundle/web.model.onnx"
_GITHUB_FILE, _GITHUB_SITE = 100 * 10**6, 10**9  # bytes; docs.github.com/pages


@dataclass(frozen=True, slots=True)
class Site:
    """A written site: bytes of all of it, of the bundle, and of its largest file.

    `unpacked` says whether 4-bit weights were unpacked to int8.
    """

    folder: Path
    size: int
    bundle_size: int
    largest: int
    unpacked: bool

    @property
    def fits_github_pages(self) -> bool:
        """Whether GitHub Pages hosts a site of this size."""
        return self.largest <= _GITHUB_FILE and self.size <= _GITHUB_SITE


def write_site(
    bundle: str | Path | None,
    output: str | Path,
    *,
    runtime: Path | None = None,
    force: bool = False,
    progress: Progress = lambda stage, done, total: None,
    notify: Notify = lambda template, **values: None,
) -> Site:
    """Write a static site that chats with `bundle`, by default the embedded model.

    `runtime` is a folder with the npm packages that the site needs; without it they come from the
    cache or from npm's registry. With `force` the site replaces an older one. Nothing is at
    `output` until all of it is. Raises WebError, and BundleError for a bundle that is not sound.
    """
    folder = bundle_folder(bundle)
    manifest = read_manifest(folder)
    target = _checked(user_path(output).resolve(), force=force)
    check_supported(folder, manifest)
    made = WebBundle(folder, manifest)
    others = {name: info for name, info in manifest.files.items() if name != made.source.name}
    verify_hashes(folder, replace(manifest, files=others))
    packages = {"ort": package_files(ONNXRUNTIME, runtime, notify)}
    if isinstance(manifest.prompt, JinjaTemplate):
        packages["jinja"] = package_files(JINJA, runtime, notify)
    files = page_files() | notice_files(folder, manifest)
    for place, found in packages.items():
        files |= {f"{place}/{name}": content for name, content in found.items()}
    files |= _bundle_files(folder, manifest, made)
    with _staged(target) as site:
        written = made.write_weights(
            site / "bundle", lambda done: progress("write", done, made.size)
        )
        files[_DESCRIPTION] = _description(manifest, written)
        stored = {name: file for name, file in files.items() if not name.startswith("licenses/")}
        files["sw.js"] = service_worker(stored)  # last: it has the hashes of all others
        for name, content in files.items():
            _write(site / name, content)
    sizes = {name: len(content) for name, content in files.items()}
    sizes[f"bundle/{made.name}"] = made.size
    of_bundle = sum(size for name, size in sizes.items() if name.startswith("bundle/"))
    return Site(target, sum(sizes.values()), of_bundle, max(sizes.values()), made.unpacked)


def _bundle_files(folder: Path, manifest: Manifest, bundle: WebBundle) -> dict[str, bytes]:
    copied = (MANIFEST_NAME, manifest.tokens.file)
    files = {f"bundle/{name}": (folder / name).read_bytes() for name in copied}
    return files | {_GRAPH: bundle.graph}


def _description(manifest: Manifest, weights: dict[str, Any]) -> bytes:
    """What the engine must know before it has the bundle (`Site` in engine/types.d.ts)."""
    description = {
        "name": manifest.source.name,
        "precision": manifest.precision.name,
        "demonstration": is_demonstration(manifest),
        "version": version("issun"),
        "manifest": f"bundle/{MANIFEST_NAME}",
        "tokenizer": f"bundle/{manifest.tokens.file}",
        "graph": _GRAPH,
        "jinja": "jinja/index.js" if isinstance(manifest.prompt, JinjaTemplate) else None,
        "weights": {"path": f"bundle/{weights['name']}", **weights},
    }
    return to_json(description)


def _checked(target: Path, *, force: bool) -> Path:
    """The target, unless it must not be written; raises WebError."""
    if not target.parent.is_dir():
        raise WebError("There is no folder {parent}.", parent=target.parent)
    if os.path.ismount(target):  # Path.is_mount fails on Windows before Python 3.12
        raise WebError("{target} is a mount point: choose a new folder in it.", target=target)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return target
    if not (target / _DESCRIPTION).is_file() or not (target / "sw.js").is_file():
        raise WebError(
            "{target} exists and is not a site of issun's: choose another folder.", target=target
        )
    if not force:
        raise WebError(
            "{target} has a site: replace it with --force, or choose another folder.",
            target=target,
        )
    return target


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well; raises WebError."""
    try:
        with partial_folder(target) as folder, _aside(target, folder.with_suffix(".old")) as old:
            yield folder
            if target.exists():
                target.rename(old)
            folder.rename(target)
    except OSError as error:
        raise WebError(
            "{target} cannot be written: {reason}", target=target, reason=reason_of(error)
        ) from error


@contextmanager
def _aside(target: Path, old: Path) -> Iterator[Path]:
    """Where an older site waits: it comes back unless a new one has taken its place."""
    try:
        yield old
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
