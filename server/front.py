"""What every request passes first: its path gets one spelling, its response an id."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page is plain files of this server: nothing inline, nothing from elsewhere.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ID = re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII)
# Clients are told a base URL with /v1 or without, and put it before the path or not.
_API = re.compile(
    r"(?:/v1)*/((?:chat/completions|completions|responses|embeddings|models)(?:/.*)?)"
)
_ROOT = re.compile(r"(?:/v1)+/(tokenize|detokenize|tokenizer_info|health|metrics|openapi\.json)")


class Front:
    """Gives each request the path that the routes know, and each response its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand one request on."""
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
    """A path as the routes spell it: one slash at a time, none at the end, `/v1` once."""
    path = re.sub("/+", "/", f"/{path}").rstrip("/") or "/"
    if found := _API.fullmatch(path):
        return f"/v1/{found[1]}"
    if found := _ROOT.fullmatch(path):
        return f"/{found[1]}"
    return path


def request_id(headers: Headers) -> str:
    """The client's own id where it is a plain one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
