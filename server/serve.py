"""Runs the application on uvicorn until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import psutil
import uvicorn
from starlette.applications import Starlette

from issun.runtime.files import reason_of
from issun.runtime.model import Model
from issun.server.app import make_app
from issun.server.connections import make_protocol
from issun.server.errors import ServerError
from issun.server.options import ServerOptions
from issun.server.service import Service

_LOG = logging.getLogger("issun.server")
_LOG_INTERVAL = 10.0  # seconds between log lines for the same fault
_SPARE_FILES = 16  # file descriptors kept for answers and for connections about to be refused
_MAX_FAULTS = 100  # different faults that are remembered
_FLUSH_SECONDS = 1.5  # for connections to receive the last data


def serve(model: Model, options: ServerOptions, on_start: Callable[[Service, str], object]) -> None:
    """Serve `model` until SIGINT or SIGTERM; `on_start` gets the service and the address.

    Raises ServerError when the address cannot be used.
    """
    options = replace(options, max_connections=_affordable(options.max_connections))
    app = make_app(model, options)
    listener = _listen(options)
    service: Service = app.state.service
    with listener:
        host, port = listener.getsockname()[:2]
        on_start(service, f"http://{f'[{host}]' if ':' in host else host}:{port}")
        asyncio.run(_Server(app, options).serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """Stops the scheduler at the first signal, with a grace period for running answers."""

    def __init__(self, app: Starlette, options: ServerOptions) -> None:
        self._service: Service = app.state.service
        self._grace = options.grace
        super().__init__(
            uvicorn.Config(
                app,
                http=make_protocol(options),
                log_level="warning",
                access_log=False,  # for privacy
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=max(1, round(options.grace + _FLUSH_SECONDS)),
                h11_max_incomplete_event_size=64 << 10,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen; faults of connections are logged as one line each."""
        asyncio.get_running_loop().set_exception_handler(_Faults())
        for name in ("asyncio", "uvicorn.error"):
            logging.getLogger(name).addFilter(_is_fault)
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down gracefully at the first signal and immediately at the second.

        uvicorn's own handler would raise the signal again at the end, which kills the process.
        """
        self._service.scheduler.stop(0.0 if self.should_exit else self._grace)
        self._service.model.preparation.stop()
        self.force_exit = self.should_exit
        self.should_exit = True


class _Faults:
    """Logs event loop faults as one line each, and equal ones at most every 10 seconds.

    When the process runs out of file descriptors, asyncio logs a traceback for each waiting
    connection, thousands of times per second.
    """

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log the fault in `context`."""
        error = context.get("exception")
        reason = reason_of(error) if isinstance(error, OSError) else repr(error)
        line = f"{context.get('message', 'an error')}: {reason}"[:500]
        if loop.time() < self._logged.get(line, -_LOG_INTERVAL) + _LOG_INTERVAL:
            return
        if len(self._logged) >= _MAX_FAULTS:
            self._logged.clear()
        self._logged[line] = loop.time()
        _LOG.error("%s", line)


def _is_fault(record: logging.LogRecord) -> bool:
    """False for log records that are not faults of the server.

    asyncio warns about data sent to a client that has disconnected, and uvicorn logs tracebacks of
    requests that are cancelled when the server shuts down immediately.
    """
    message = record.getMessage()
    cancelled = message.rstrip().endswith(asyncio.CancelledError.__qualname__) or (
        record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    )
    return message != "socket.send() raised exception." and not cancelled


def _affordable(connections: int) -> int:
    """`connections`, or fewer if the limit of open files requires it."""
    try:
        import resource  # noqa: PLC0415
    except ModuleNotFoundError:  # Windows has no such limit
        return connections
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return connections
    held: int = psutil.Process().num_fds()
    return max(1, min(connections, limit - held - _SPARE_FILES))


def _listen(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets whose protocol is known to be TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
        listener.listen(options.max_connections)
    except OSError as error:
        listener.close()
        raise ServerError(
            "Cannot listen on {host}, port {port}: {reason}",
            host=options.host,
            port=options.port,
            reason=reason_of(error),
        ) from error
    return listener
