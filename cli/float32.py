"""The float32 bundle that fidelity is measured against, and where temporary files go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from issun.cli.extras import needs_extra
from issun.runtime import ParameterError
from issun.runtime.files import user_path
from issun.runtime.manifest import MANIFEST_NAME, read_manifest


def work_folder(work: Path | None, bundle: Path, against: Path) -> Path:
    """The folder for temporary files: `work`, or one near the models; raises ParameterError."""
    folder = user_path(work) if work else _default_work(bundle.resolve(), against.resolve())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ParameterError(
            "{path} is not a writable folder: give another with --work.", path=folder
        )
    return folder


def _default_work(bundle: Path, against: Path) -> Path:
    """The folder for temporary files; they are large, and the system's own may be in memory."""
    inside = against in (bundle.parent, *bundle.parent.parents)
    return against.parent if inside else bundle.parent


@contextmanager
def float32_bundle(against: Path, work: Path, tokenizer: str | None) -> Iterator[tuple[Path, str]]:
    """The float32 bundle, made from the checkpoint if necessary, and its name for the record."""
    if (against / MANIFEST_NAME).is_file():
        manifest = read_manifest(against)
        if manifest.precision.name != "float32":
            raise ParameterError(
                "{path} is {precision}: compare with the checkpoint, or with a float32 bundle.",
                path=against,
                precision=manifest.precision.name,
            )
        yield against, manifest.source.name
        return
    with needs_extra('Exporting needs {module}: pip install "issun[export]"'):
        from issun.export import ExportOptions, export  # noqa: PLC0415
    with TemporaryDirectory(
        prefix=".issun-fidelity-", dir=work, ignore_cleanup_errors=True
    ) as folder:
        bundle = Path(folder) / "float32"
        made = export(against, bundle, ExportOptions(precision="float32", tokenizer=tokenizer))
        yield bundle, made.source.name
