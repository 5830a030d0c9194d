"""Real servers on free ports, each in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from issun.runtime import Model
from issun.server.app import make_app
from issun.server.options import ServerOptions
from issun.server.serve import _listen, _Server
from issun.server.service import Service


class Running:
    """A server that answers at `url`, and what it works with."""

    def __init__(self, url: str, service: Service) -> None:
        self.url, self.service = url, service

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **more)


@contextmanager
def running(model: Model, **options: Any) -> Iterator[Running]:
    chosen = ServerOptions(**{"port": 0, "kv_memory": 1 << 30, **options})
    app = make_app(model, chosen)
    server = _Server(app, chosen)
    with _listen(chosen) as listener:
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        host, port = listener.getsockname()[:2]
        yield Running(f"http://{host}:{port}", app.state.service)
        server.handle_exit(15, None)
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def embedded() -> Iterator[Model]:
    """The embedded model, for what a test computes itself."""
    with Model.load(threads=1) as model:
        yield model


@contextmanager
def embedded_server(**options: Any) -> Iterator[Running]:
    """The embedded model behind a real socket."""
    with Model.load(threads=1) as model, running(model, **options) as found:
        yield found


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One server with the default options for the tests of a file."""
    with embedded_server() as found:
        yield found
