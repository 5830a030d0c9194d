"""`issun kit`: a folder that chats on a computer without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from issun.cli import options as opt
from issun.cli.language import note, tr
from issun.cli.progress import Bars

# The keys of issun.kit.PLATFORMS, which are not imported for the sake of a help text.
PLATFORMS = "linux-x86_64, linux-arm64, macos-arm64, windows-x86_64, windows-arm64"


def run(
    *,
    bundle: opt.Bundle = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help=tr("Folder of the new kit."))
    ],
    platforms: Annotated[
        list[str] | None,
        typer.Option(
            "--platform",
            metavar="NAME",
            help=tr(
                "Platform to run on; may be repeated (default: this computer's): {names}."
            ).format(names=PLATFORMS),
        ),
    ] = None,
    pythons: Annotated[
        list[str] | None,
        typer.Option(
            "--python",
            metavar="X.Y",
            help=tr("Python version there; may be repeated (default: this Python's)."),
        ),
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr("issun's own wheel (default: built from the checkout it was installed from)."),
        ),
    ] = None,
) -> None:
    """Write the kit and say how to start it."""
    from issun.kit import make_targets, write_kit  # noqa: PLC0415

    targets = make_targets(platforms or [], pythons or [])
    with Bars({"copy": tr("copying")}, in_bytes=True) as progress:
        size = write_kit(bundle, output, targets, wheel=wheel, progress=progress, notify=note)
    note(
        "{output}: {size:,.0f} MB, for {targets}. To start it: sh chat.sh, on Windows chat.bat",
        output=output,
        size=size / 1e6,
        targets=", ".join(target.name for target in targets),
    )
