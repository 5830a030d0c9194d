"""The licences in a site: of the weights as far as known, of issun and of ONNX Runtime."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import JinjaTemplate, Manifest, read_manifest
from issun.web.packages import JINJA, ONNXRUNTIME

_TEXTS = Path(__file__).with_name("texts")
_LICENCES = ("licen", "notice", "copying")  # how the names of such files begin


def notice_files(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """The content of the files with notices, by their paths in the site."""
    own = manifest.bundle_id == read_manifest(EMBEDDED).bundle_id
    text = (_TEXTS / ("notice-embedded.txt" if own else "notice.txt")).read_text(encoding="utf-8")
    source = " ".join(filter(None, (manifest.source.name, manifest.source.revision)))
    notice = text.format(source=source, onnxruntime=ONNXRUNTIME.version)
    if isinstance(manifest.prompt, JinjaTemplate):
        notice += f"\njinja: {JINJA.name} {JINJA.version}, MIT (jinja/LICENSE)\n"
    # npm's package has no licence file; Python's has the same project's.
    files = {"NOTICE.txt": notice.encode()}
    files |= _of_distribution("issun", ("LICENSE",))
    files |= _of_distribution("onnxruntime", ("LICENSE", "ThirdPartyNotices.txt"))
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.lower().startswith(_LICENCES):
            files[f"licenses/model-{path.name}"] = path.read_bytes()
    return files


def _of_distribution(name: str, names: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for file in distribution(name).files or ():
        path = Path(str(file.locate()))
        if file.name in names and path.is_file():
            found[f"licenses/{name}-{file.name}"] = path.read_bytes()
    return found
