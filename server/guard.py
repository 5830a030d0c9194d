"""Checks host, origin, API key, body size and body time of every request."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issun.server.errors import (
    AmbiguousBodyError,
    ApiError,
    AuthenticationError,
    ForbiddenError,
    SlowRequestError,
    TooLargeError,
)
from issun.server.options import ServerOptions
from issun.server.origins import origin_of
from issun.server.service import error_response

_OPEN = ("/health", "/page/")  # need no key, like the page itself


class Guard:
    """Refuses requests that the options do not allow."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app, self._options = app, options
        self._origins = {origin_of(origin) for origin in options.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope["method"], scope["path"], Headers(scope=scope))
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, _Body(receive, self._options), send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may see another end of the body (request smuggling; RFC 9112, 6.3).
            raise AmbiguousBodyError("Send Content-Length or Transfer-Encoding, not both.")
        host = headers.get("host", "")
        if not self._is_own(host):
            # Another site's host name may resolve to this server (DNS rebinding).
            raise ForbiddenError(
                "The host name {host!r} is not allowed: start the server with --allow-host.",
                host=host[:100],
            )
        origin = headers.get("origin")
        own = origin is not None and _netloc(origin) == host
        if origin is not None and not own and origin_of(origin) not in self._origins:
            raise ForbiddenError(
                "The origin {origin!r} is not allowed: start the server with --allow-origin.",
                origin=origin[:100],
            )
        foreign = origin is None and headers.get("sec-fetch-site") == "cross-site"
        if foreign and not _opens_page(method, path, headers):
            raise ForbiddenError("Requests from other sites are not allowed.")
        if path != "/" and not path.startswith(_OPEN):
            self._check_key(headers.get("authorization", ""))
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._options.max_body:
            raise _too_large(self._options)

    def _is_own(self, host: str) -> bool:
        """True for IP addresses, localhost and allowed names, which DNS rebinding cannot use."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        allowed = {known.lower() for known in self._options.allowed_hosts}
        if name == "localhost" or name in allowed:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_key(self, given: str) -> None:
        key = self._options.api_key
        if key is None:
            return
        scheme, _, token = given.partition(" ")
        same = hmac.compare_digest(token.strip().encode("latin-1"), key.encode())
        if scheme.lower() != "bearer" or not same:
            raise AuthenticationError("The API key is missing or wrong: send it as Bearer.")


class _Body:
    """Receives the body, within its size and time limits, and the messages after it."""

    def __init__(self, receive: Receive, options: ServerOptions) -> None:
        self._receive, self._options = receive, options
        self._left, self._whole = options.max_body, False
        self._deadline: float | None = None

    async def __call__(self) -> Message:
        if self._whole:  # only the disconnect follows, at any time
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + self._options.body_timeout
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise SlowRequestError(
                "The body did not arrive within {limit:g} s.", limit=self._options.body_timeout
            ) from error
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._options)
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message


def _opens_page(method: str, path: str, headers: Headers) -> bool:
    """Whether a link to the page was followed, which reveals nothing to the other site."""
    wanted = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return (method, path, *wanted) == ("GET", "/", "navigate", "document")


def _netloc(url: str) -> str | None:
    """Host and port of a URL; None if it is invalid."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _too_large(options: ServerOptions) -> TooLargeError:
    return TooLargeError("The body may have {limit:,} bytes at most.", limit=options.max_body)
