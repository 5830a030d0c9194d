"""Limits the number of connections and closes idle ones."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.datastructures import Headers
from uvicorn.protocols.http.h11_impl import H11Protocol

from issun.server.errors import UnavailableError, error_object
from issun.server.front import request_id
from issun.server.options import ServerOptions


def make_protocol(options: ServerOptions) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol within the limits of `options`."""

    class Protocol(_Connection):
        """A connection of this server."""

        limits = options

    return Protocol


class _Connection(H11Protocol):
    """A connection that is closed after `body_timeout` seconds without a request in progress.

    It is also closed when the client does not read an answer until long after its deadline, or the
    last data after the connection was shut down, and when a new connection needs room and this
    one has been idle longest.
    """

    limits: ServerOptions
    _watch: asyncio.TimerHandle | None = None
    _waited = 0.0  # seconds spent on the current request
    _idle_since = 0.0  # on the loop's clock

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, closing an idle one if necessary, or refuse it."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        if self._make_room():
            self._look_later()
        else:
            transport.write(_refusal())
            transport.close()

    def on_response_complete(self) -> None:
        """Record when the connection became idle."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _make_room(self) -> bool:
        """Whether there is room for this connection, closing the longest idle one if necessary."""
        if len(self.connections) <= self.limits.max_connections:
            return True
        others: list[_Connection] = [
            other  # type: ignore[misc]
            for other in self.connections
            if other is not self and not other.transport.is_closing()
        ]
        if len(others) < self.limits.max_connections:  # the others are already closing
            return True
        idle = [other for other in others if other.idle]
        if not idle:
            return False
        min(idle, key=lambda other: other._idle_since).transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._watch:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        closing = self.transport.is_closing()
        wait = self.limits.body_timeout
        self._watch = self.loop.call_later(wait, self._look, self.cycle, closing)

    def _look(self, before: Any, closing: bool = False) -> None:
        """Close the connection if nothing happened since `before` was the current request."""
        self._waited = self._waited + self.limits.body_timeout if self.cycle is before else 0.0
        silent = self.idle and self.cycle is before
        late = self._waited > self.limits.deadline + self.limits.body_timeout
        if silent or late or closing:
            self.transport.abort()
        else:
            self._look_later()


def _refusal() -> bytes:
    error = UnavailableError("There are too many connections.")
    body = msgspec.json.encode(error_object(error))
    head = (
        f"HTTP/1.1 {error.status} Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        f"X-Request-Id: {request_id(Headers())}\r\n\r\n"
    )
    return head.encode() + body
