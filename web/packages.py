"""Files of pinned npm packages, each downloaded once and kept in the cache."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
import tarfile
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from issun.runtime.errors import Notify
from issun.runtime.files import reason_of
from issun.web.errors import WebError

_REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True, slots=True)
class Package:
    """A release of npm, and the files that a site needs of it.

    `sha512` is the tarball's, as `npm view NAME@VERSION dist.integrity` prints it, `size` its
    megabytes; `files` have the SHA-256 of each.
    """

    name: str
    version: str
    size: float
    sha512: str
    files: Mapping[str, str]

    @property
    def release(self) -> str:
        """The release as npm spells it."""
        return f"{self.name}@{self.version}"

    @property
    def path(self) -> str:
        """The tarball's path in a registry."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


ONNXRUNTIME = Package(
    name="onnxruntime-web",
    version="1.30.0",
    size=33,
    sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    files={
        "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
        "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",  # noqa: E501
        "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",  # noqa: E501
    },
)
JINJA = Package(
    name="@huggingface/jinja",
    version="0.5.11",
    size=0.1,
    sha512="YzEzwM5oQf4r0vs7ifWQ+yuVR1YkAHrjERQ+a8WRsStHHp4NRBg+NesjiFc+X2AFUpRvvrIeHDS1xFy9jY/IjQ==",
    files={
        "index.js": "c8871915dfa68f976c11540c33fc9341c0810ebe29adb7027b8d51f2a8044936",
        "LICENSE": "d6e7b19451c1b3d1d66353bb4b1274138953b3bfd9ae60c56e77b1f548796982",
    },
)
_MAX_BYTES = 64 << 20  # of a tarball
_SECONDS = 60.0  # without an answer of the server


def package_files(package: Package, given: Path | None, notify: Notify) -> dict[str, bytes]:
    """Return the files' content by name, from the folder `given`, the cache, or npm's registry.

    `given` is a folder with the files, or one of npm's with the package in it. Raises WebError if
    a file is missing or is not that of the pinned release.
    """
    if given is not None:
        return _checked(package, _dist(package, given))
    name = f"{package.name.replace('/', '-').lstrip('@')}-{package.version}"
    folder = platformdirs.user_cache_path("issun") / "web" / name
    if not all((folder / name).is_file() for name in package.files):
        _download(package, folder, notify)
    return _checked(package, folder)


def _dist(package: Package, folder: Path) -> Path:
    """The folder with the package, in one of a package or of `npm install`."""
    places = [folder, *(folder / name / package.name for name in (".", "node_modules"))]
    first = next(iter(package.files))
    found = (p for p in places if any((p / d / first).is_file() for d in (".", "dist")))
    return next(found, folder)


def _checked(package: Package, folder: Path) -> dict[str, bytes]:
    found = {}
    for name, sha256 in package.files.items():
        path = next((p for p in (folder / name, folder / "dist" / name) if p.is_file()), None)
        if path is None:
            raise WebError(
                "{folder} has no {name} of {package}: install it there with npm, or leave out "
                "--runtime.",
                folder=folder,
                name=name,
                package=package.release,
            )
        found[name] = path.read_bytes()
        if hashlib.sha256(found[name]).hexdigest() != sha256:
            raise WebError(
                "{path} is not the file of {package}: remove it, or give another folder.",
                path=path,
                package=package.release,
            )
    return found


def _download(package: Package, folder: Path, notify: Notify) -> None:
    registry = os.environ.get("npm_config_registry", _REGISTRY).rstrip("/")  # noqa: SIM112 - npm's spelling
    url = f"{registry}/{package.path}"
    notify(
        "Downloading {package} ({size} MB, once): {url}",
        package=package.release,
        size=package.size,
        url=url,
    )
    content = _fetch(url, package)
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.sha512:
        raise WebError(
            "{url} has another content than expected (SHA-512 {found}).", url=url, found=found
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            _extract(package, content, Path(made))
            folder.mkdir(exist_ok=True)
            for name in package.files:
                (Path(made) / name).replace(folder / name)
    except OSError as error:
        raise WebError(
            "{folder} cannot be written: {reason}", folder=folder, reason=reason_of(error)
        ) from error


def _fetch(url: str, package: Package) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise WebError("{url} is not the address of a registry.", url=url)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310
            content: bytes = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise WebError(
            "{url} cannot be downloaded ({reason}). Run `npm install {package}` elsewhere, and "
            "name that folder: --runtime DIR",
            url=url,
            reason=str(error) or type(error).__name__,
            package=package.release,
        ) from error
    return content


def _extract(package: Package, content: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        names = set(archive.getnames())
        for name in package.files:
            places = (f"package/dist/{name}", f"package/{name}")
            place = next((place for place in places if place in names), None)
            file = archive.extractfile(place) if place else None
            if file is None:
                raise WebError("{package} has no {name}.", package=package.release, name=name)
            (folder / name).write_bytes(file.read())
