"""The outermost middleware: normalizes the path and adds security headers and a request id."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page consists of plain files of this server: no inline scripts and no other origins.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ID = re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII)
# Some clients append /v1 to a base URL that already has it; others leave it out.
_API = re.compile(
    r"(?:/v1)*/((?:chat/completions|completions|responses|embeddings|models)(?:/.*)?)"
)
_ROOT = re.compile(r"(?:/v1)+/(tokenize|detokenize|tokenizer_info|health|metrics|openapi\.json)")


class Front:
    """Normalizes the path of each request and sets the headers of each response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {**_HEADERS, "X-Request-Id": request_id(Headers(scope=scope))}
        scope = {**scope, "path": canonical(scope["path"])}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in headers.items():
                    given[name] = value
            await send(message)

        await self._app(scope, receive, sending)


def canonical(path: str) -> str:
    """The normalized path: no repeated or trailing slashes, and `/v1` exactly once."""
    path = re.sub("/+", "/", f"/{path}").rstrip("/") or "/"
    if found := _API.fullmatch(path):
        return f"/v1/{found[1]}"
    if found := _ROOT.fullmatch(path):
        return f"/{found[1]}"
    return path


def request_id(headers: Headers) -> str:
    """The client's `X-Request-Id` if it is well-formed, else a new id."""
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
