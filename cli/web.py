"""`issun web`: a static site that chats in the browser."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from issun.cli import options as opt
from issun.cli.language import note, tr
from issun.cli.progress import Bars


def run(
    *,
    bundle: opt.Bundle = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help=tr("Folder of the new site."))
    ],
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=tr("Folder with the packages of npm (default: downloaded once)."),
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help=tr("Replace a site that is in the folder."))
    ] = False,
    serve: Annotated[
        bool,
        typer.Option("--serve", help=tr("Serve the site on this computer afterwards.")),
    ] = False,
    port: Annotated[int, typer.Option(help=tr("Port for --serve; 0 picks a free one."))] = 8000,
) -> None:
    """Write the site and say what hosting it means."""
    from issun.web import write_site  # noqa: PLC0415

    with Bars({"write": tr("writing")}, in_bytes=True) as progress:
        site = write_site(
            bundle, output, runtime=runtime, force=force, progress=progress, notify=note
        )
    note(
        "{folder}: {size:,.1f} MB, of which the bundle has {bundle:,.1f} MB. Any static web server "
        "can host it.",
        folder=output,
        size=site.size / 1e6,
        bundle=site.bundle_size / 1e6,
    )
    if site.unpacked:
        note("Its 4-bit weights are unpacked to int8, for which WebAssembly has kernels.")
    note("Hosting it passes the weights on: read NOTICE.txt in it first.")
    if not site.fits_github_pages:
        note(
            "GitHub Pages does not host it: files have at most 100 MB there, and sites 1 GB. The "
            "largest file has {largest:,.0f} MB.",
            largest=site.largest / 1e6,
        )
    if serve:
        _serve(site.folder, port)


def _serve(folder: Path, port: int) -> None:
    from issun.web.serving import site_server  # noqa: PLC0415

    with site_server(folder, port) as server:
        note("Open http://127.0.0.1:{port}/ (Ctrl-C stops.)", port=server.server_port)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
