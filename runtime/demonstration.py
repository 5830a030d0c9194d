"""The small demonstration model, which comes with the package and is used when none is named."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from issun.runtime.files import user_path
from issun.runtime.manifest import Manifest, read_manifest

EMBEDDED = Path(__file__).with_name("embedded")


def bundle_folder(path: str | Path | None) -> Path:
    """Return the folder of a bundle named by a user; None is the embedded model."""
    return EMBEDDED if path is None else user_path(path)


def is_demonstration(manifest: Manifest) -> bool:
    """Return whether a bundle was made from the checkpoint of the embedded model."""
    return manifest.source.sha256 == _demonstration_source()


@cache
def _demonstration_source() -> str:
    return read_manifest(EMBEDDED).source.sha256
