"""`issun serve`: serves a bundle with an OpenAI-compatible API and a chat page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from issun.benchmarks.sizes import parse_size
from issun.cli import options as opt
from issun.cli.extras import needs_extra
from issun.cli.language import note, tr
from issun.runtime import Model, ParameterError
from issun.runtime.files import read_text

if TYPE_CHECKING:
    from issun.server.service import Service


def run(
    *,
    bundle: opt.Bundle = None,
    host: Annotated[str, typer.Option(help=tr("Address to listen on."))] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=tr("Port; 0 picks a free one."))] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="ISSUN_API_KEY",
            help=tr(
                "API key that clients must send; a file or ISSUN_API_KEY keeps it out of "
                "process lists."
            ),
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=tr("File with the API key."))
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help=tr("Additional host name under which the server may be reached.")
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help=tr("Origin of another web site that may use the API.")),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option(
            help=tr("Answers to generate at the same time (default: what fits into memory).")
        ),
    ] = None,
    kv_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help=tr(
                "Memory for the KV cache, such as 2GB (default: a quarter of the free memory)."
            ),
        ),
    ] = None,
    max_queue: Annotated[int, typer.Option(help=tr("Requests that may wait in the queue."))] = 64,
    deadline: Annotated[
        float, typer.Option(metavar="SECONDS", help=tr("Time limit for one request."))
    ] = 600.0,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help=tr("Open the chat page in the browser."))
    ] = False,
    threads: opt.Threads = None,
    kv_cache: opt.KVCache = None,
    trust: opt.Trust = False,
    adapter: opt.Adapters = None,
) -> None:
    """Serve until Ctrl-C."""
    with needs_extra('The server needs {module}: pip install "issun[server]"'):
        from issun.server.options import ServerOptions  # noqa: PLC0415
        from issun.server.serve import serve  # noqa: PLC0415
    options = ServerOptions(
        host=host,
        port=port,
        api_key=_key(api_key, api_key_file),
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        slots=slots,
        kv_memory=None if kv_memory is None else parse_size(kv_memory),
        max_queue=max_queue,
        deadline=deadline,
    )

    def started(service: Service, address: str) -> None:
        note(
            "Serving {name} at {address} (Ctrl-C stops the server).",
            name=", ".join(service.names),
            address=address,
        )
        if open_page:
            webbrowser.open(address)

    kind, adapters = cast(Any, kv_cache), opt.adapters(adapter or [])
    with Model.load(
        bundle, threads=threads, kv_cache=kind, trust=trust, adapters=adapters, notify=note
    ) as model:
        serve(model, options, started)


def _key(key: str | None, path: Path | None) -> str | None:
    if path is None:
        return key or None
    if key:
        raise ParameterError("Give --api-key or --api-key-file, not both.")
    return read_text(path).strip()
