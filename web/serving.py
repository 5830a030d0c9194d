"""A static web server for a look at a site on this computer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from issun.runtime.files import reason_of
from issun.web.errors import WebError

# Systems' tables of types may be incomplete, or changed by other programs.
_TYPES = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}


class SiteHandler(SimpleHTTPRequestHandler):
    """Serves files with their types, and prints nothing."""

    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **_TYPES}  # noqa: RUF012

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


@contextmanager
def site_server(
    folder: Path, port: int, handler_type: type[SiteHandler] = SiteHandler
) -> Iterator[ThreadingHTTPServer]:
    """A server of `folder` on this computer alone; port 0 picks a free one. Raises WebError."""
    handler = partial(handler_type, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        raise WebError("Port {port} cannot be used: {reason}", port=port, reason=reason) from error
    with server:
        yield server
