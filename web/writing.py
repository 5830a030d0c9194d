"""The site's folder: written beside its place, and put there whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from issun.runtime.errors import Notify
from issun.runtime.files import partial_folder, reason_of, user_path
from issun.runtime.manifest import (
    MANIFEST_NAME,
    SMOOTHING_NAME,
    Manifest,
    read_manifest,
    verify_hashes,
)
from issun.runtime.model import EMBEDDED, bundle_folder
from issun.web.errors import WebError
from issun.web.graph import web_graph
from issun.web.notices import notice_files
from issun.web.page import page_files, service_worker, to_json
from issun.web.runtime_files import runtime_files
from issun.web.supported import check_supported

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all

_DESCRIPTION = "site.json"
_PART = 16 << 20  # bytes of the weights that are checked and stored together
_GITHUB_FILE, _GITHUB_SITE = 100 * 10**6, 10**9  # bytes; docs.github.com/pages


@dataclass(frozen=True, slots=True)
class Site:
    """A written site: bytes of all of it, of the bundle, and of its largest file."""

    folder: Path
    size: int
    bundle_size: int
    largest: int

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

    `runtime` is a folder with the files of onnxruntime-web; without it they come from the cache or
    from npm's registry. With `force` the site replaces an older one. Nothing is at `output` until
    all of it is. Raises WebError, and BundleError for a bundle that is not sound.
    """
    folder = bundle_folder(bundle)
    manifest = read_manifest(folder)
    target = _checked(user_path(output).resolve(), force=force)
    check_supported(folder, manifest)
    verify_hashes(folder, manifest)
    runtime_paths = runtime_files(runtime, notify)
    weights = _weights(folder, manifest)
    files = page_files() | notice_files(folder, manifest)
    files |= {f"ort/{name}": path.read_bytes() for name, path in runtime_paths.items()}
    files |= _bundle_files(folder, manifest)
    files[_DESCRIPTION] = _description(manifest, weights, progress)
    kept = {path: content for path, content in files.items() if not path.startswith("licenses/")}
    files["sw.js"] = service_worker(kept)  # last: it has the hashes of all others
    with _staged(target) as site:
        for name, content in files.items():
            _write(site / name, content)
        shutil.copyfile(weights, site / "bundle" / weights.name)
    sizes = {name: len(content) for name, content in files.items()}
    sizes[f"bundle/{weights.name}"] = weights.stat().st_size
    of_bundle = sum(size for name, size in sizes.items() if name.startswith("bundle/"))
    return Site(target, sum(sizes.values()), of_bundle, max(sizes.values()))


def _weights(folder: Path, manifest: Manifest) -> Path:
    """The one file that the graph's tensors are in."""
    others = {*manifest.graphs.values(), manifest.tokens.file, SMOOTHING_NAME}
    found = sorted(name for name in manifest.files if name not in others)
    if len(found) != 1:
        raise WebError(
            "{folder} has {count} files of weights instead of one.", folder=folder, count=len(found)
        )
    return folder / found[0]


def _bundle_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    graph = (folder / manifest.graphs[manifest.kv_cache]).read_bytes()
    copied = (MANIFEST_NAME, manifest.tokens.file)
    files = {f"bundle/{name}": (folder / name).read_bytes() for name in copied}
    return files | {"bundle/web.model.onnx": web_graph(graph)}


def _description(manifest: Manifest, weights: Path, progress: Progress) -> bytes:
    """What the engine must know before it has the bundle (`Site` in engine/types.d.ts)."""
    info = manifest.files[weights.name]
    parts = []
    with weights.open("rb") as file:
        while part := file.read(_PART):
            parts.append(hashlib.sha256(part).hexdigest())
            progress("hash", min(len(parts) * _PART, info.size), info.size)
    description = {
        "name": manifest.source.name,
        "precision": manifest.precision.name,
        "demonstration": manifest.source.sha256 == read_manifest(EMBEDDED).source.sha256,
        "version": version("issun"),
        "manifest": f"bundle/{MANIFEST_NAME}",
        "tokenizer": f"bundle/{manifest.tokens.file}",
        "graph": "bundle/web.model.onnx",
        "weights": {
            "path": f"bundle/{weights.name}",
            "name": weights.name,
            "size": info.size,
            "sha256": info.sha256,
            "part_size": _PART,
            "parts": parts,
        },
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
