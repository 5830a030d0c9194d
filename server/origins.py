"""Cross-origin requests: allowed origins and CORS preflights."""

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
    """CORS for the allowed origins, including access to a server in the user's private network."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # browser clients send custom ones
            allow_private_network=True,
            expose_headers=["X-Request-Id", "Retry-After"],
        )

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of `origin` may use the API."""
        return origin_of(origin) in self.allow_origins

    def preflight_response(self, request_headers: Headers) -> Response:
        """The response to a preflight request."""
        response = super().preflight_response(request_headers)
        if "access-control-request-local-network" in request_headers:  # the newer name
            response.headers["Access-Control-Allow-Local-Network"] = "true"
        return response


def check_origin(given: str) -> None:
    """Raise ServerError, with a suggestion, unless `given` is the origin of one site."""
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
    """Scheme, host and port as browsers send them; None for anything that is not an origin."""
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
