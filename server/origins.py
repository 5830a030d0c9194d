"""Pages of other sites that may ask: their origins, and what browsers ask beforehand."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from issun.server.errors import ServerError

_PORTS = {"http": 80, "https": 443}


class Cors(CORSMiddleware):
    """Lets the pages of some origins ask, also a server on their user's own network."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # clients in a browser send some of their own
            allow_private_network=True,
            expose_headers=["X-Request-Id", "Retry-After"],
        )

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether a page of `origin` may ask."""
        return origin_of(origin) in self.allow_origins

    def preflight_response(self, request_headers: Headers) -> Response:
        """What a browser is told before it sends a request."""
        response = super().preflight_response(request_headers)
        if "access-control-request-local-network" in request_headers:  # the newer name
            response.headers["Access-Control-Allow-Local-Network"] = "true"
        return response


def check_origin(given: str) -> None:
    """Raise ServerError for what is not the origin of one site, with what to give instead."""
    if given.strip() == "*":
        raise ServerError(
            "--allow-origin * would let every web page use this server: name the sites "
            "that may, such as https://chat.example."
        )
    if given.strip().lower() == "null":
        raise ServerError(
            "--allow-origin null would let local files and sandboxed pages of any site use "
            "this server: serve the page from an address, such as http://localhost:8080, "
            "and allow that."
        )
    if origin_of(given) is None:
        host = re.sub(r"^\w*:?/*", "", given) if "://" in given else given
        scheme = given.split("://", maxsplit=1)[0] if "://" in given else "https"
        example = origin_of(f"{scheme}://{re.split('[/?#]', host)[0]}") or "https://chat.example"
        raise ServerError(
            "--allow-origin {origin!r} is not the origin of a site, which is a scheme and a host: "
            "give {example}.",
            origin=given[:100],
            example=example,
        )


def origin_of(url: str) -> str | None:
    """Scheme, host and port as browsers send them; None for what has something else, or less."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        host = host.encode("idna").decode()
    except ValueError:
        return None
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not parts.scheme or more or "*" in host or not (host or parts.scheme == "file"):
        return None
    host = f"[{host}]" if ":" in host else host
    shown = f":{port}" if port is not None and port != _PORTS.get(parts.scheme) else ""
    return f"{parts.scheme}://{host}{shown}"
