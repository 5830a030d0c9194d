"""`issun adapter`: makes a LoRA adapter that a bundle can be loaded with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from issun.cli.extras import needs_extra
from issun.cli.language import note, tr
from issun.cli.options import utf8
from issun.runtime.files import user_path


def run(
    *,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help=tr("Folder of a bundle."))],
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER", help=tr("Folder or hub id of a LoRA adapter that PEFT saved.")
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help=tr("File to write."))
    ],
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help=tr("Access token for the hub."))
    ] = None,
) -> None:
    """Write the adapter for this bundle to a new file."""
    with needs_extra('Reading adapters needs {module}: pip install "issun[export]"'):
        from issun.export.bundle_adapter import make_adapter  # noqa: PLC0415
    header = make_adapter(bundle, utf8(adapter), output, token=token)
    path = user_path(output)
    note(
        "{path}: {size:,.1f} MB, rank {rank}, {count} linear layers. Use it with --adapter {path}.",
        path=path,
        size=path.stat().st_size / 1e6,
        rank=header.rank,
        count=len(header.linears),
    )
