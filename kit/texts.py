"""What a kit's text files say, in Japanese and in English."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from issun.kit.platforms import Target
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import Manifest, read_manifest

_TEXTS = Path(__file__).with_name("support")
_SYSTEMS = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}


def readme(manifest: Manifest, targets: Sequence[Target]) -> str:
    """How to start and what is written where."""
    model = f"{manifest.source.name} ({manifest.precision.name})"
    return _filled("README.txt", model=model, targets=_listed(targets), version=version("issun"))


def notice(manifest: Manifest) -> str:
    """The licences: of the weights, as far as they are known, and of the rest."""
    if manifest.bundle_id == read_manifest(EMBEDDED).bundle_id:
        return _filled("notice-embedded.txt")
    source = " ".join(filter(None, (manifest.source.name, manifest.source.revision)))
    return _filled("notice.txt", source=source)


def python_needed(targets: Sequence[Target]) -> str:
    """What the launchers say where they find no Python that the kit is for."""
    return _filled("python-needed.txt", targets=_listed(targets))


def _filled(name: str, **values: str) -> str:
    return (_TEXTS / name).read_text(encoding="utf-8").format(**values)


def _listed(targets: Sequence[Target]) -> str:
    pythons: dict[str, list[str]] = {}
    for target in targets:
        pythons.setdefault(target.platform, []).append(target.python)
    lines = []
    for platform, versions in pythons.items():
        system, machine = platform.split("-")
        lines.append(f"    {_SYSTEMS[system]} ({machine}): Python {', '.join(versions)}")
    return "\n".join(lines)
