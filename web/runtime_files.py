"""The files of onnxruntime-web: a pinned release of npm, downloaded once and kept in the cache."""

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
from pathlib import Path

import platformdirs

from issun.runtime.errors import Notify
from issun.runtime.files import reason_of
from issun.web.errors import WebError

VERSION = "1.30.0"
_REGISTRY = "https://registry.npmjs.org"
# Of the tarball, as `npm view onnxruntime-web@1.30.0 dist.integrity` prints it.
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES: Mapping[str, str] = {  # SHA-256
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",  # noqa: E501
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",  # noqa: E501
}
_MAX_BYTES = 64 << 20  # of the tarball, which has 33 MB
_SECONDS = 60.0  # without an answer of the server


def runtime_files(given: Path | None, notify: Notify) -> dict[str, Path]:
    """Return the files by name, from the folder `given`, the cache, or npm's registry.

    `given` is a folder with the files, or one of npm's with onnxruntime-web in it. Raises WebError
    if a file is missing or is not that of the pinned release.
    """
    if given is not None:
        return _checked(_dist(given))
    folder = platformdirs.user_cache_path("issun") / "web" / f"onnxruntime-web-{VERSION}"
    if not all((folder / name).is_file() for name in FILES):
        _download(folder, notify)
    return _checked(folder)


def _dist(folder: Path) -> Path:
    """The folder with the files, in one of a package or of `npm install`."""
    candidates = [folder, folder / "dist"]
    candidates += [folder / name / "onnxruntime-web" / "dist" for name in (".", "node_modules")]
    return next((c for c in candidates if (c / "ort.wasm.min.mjs").is_file()), folder)


def _checked(folder: Path) -> dict[str, Path]:
    for name, sha256 in FILES.items():
        path = folder / name
        if not path.is_file():
            raise WebError(
                "{folder} has no {name} of onnxruntime-web {version}.",
                folder=folder,
                name=name,
                version=VERSION,
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise WebError(
                "{path} is not the file of onnxruntime-web {version}: remove it, or give another "
                "folder.",
                path=path,
                version=VERSION,
            )
    return {name: folder / name for name in FILES}


def _download(folder: Path, notify: Notify) -> None:
    registry = os.environ.get("npm_config_registry", _REGISTRY).rstrip("/")  # noqa: SIM112 - npm's spelling
    url = f"{registry}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    notify("Downloading onnxruntime-web {version} (33 MB, once): {url}", version=VERSION, url=url)
    content = _fetch(url)
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != _SHA512:
        raise WebError(
            "{url} has another content than expected (SHA-512 {found}).", url=url, found=found
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            _extract(content, Path(made))
            folder.mkdir(exist_ok=True)
            for name in FILES:
                (Path(made) / name).replace(folder / name)
    except OSError as error:
        raise WebError(
            "{folder} cannot be written: {reason}", folder=folder, reason=reason_of(error)
        ) from error


def _fetch(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise WebError("{url} is not the address of a registry.", url=url)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310
            content: bytes = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise WebError(
            "{url} cannot be downloaded ({reason}). Run `npm pack onnxruntime-web@{version}` "
            "elsewhere, unpack it and name its folder: --runtime DIR",
            url=url,
            reason=str(error) or type(error).__name__,
            version=VERSION,
        ) from error
    return content


def _extract(content: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for name in FILES:
            file = archive.extractfile(f"package/dist/{name}")
            if file is None:
                raise WebError("The package of onnxruntime-web has no {name}.", name=name)
            (folder / name).write_bytes(file.read())
