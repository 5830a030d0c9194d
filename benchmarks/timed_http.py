"""HTTP requests that end at a deadline, however slowly a server sends."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult


class TimedResponse(HTTPResponse):
    """A response of which nothing is read after `deadline`, a time of `time.perf_counter`."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.deadline = deadline  # may be moved
        self.fp = io.BufferedReader(_TimedReader(self, sock, self.fp.detach()))


class _TimedReader(io.RawIOBase):
    """Reads from a socket; raises TimeoutError at the response's deadline.

    A socket's own timeout starts anew with every byte, and a deadline does not.
    """

    def __init__(self, response: TimedResponse, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._response, self._socket, self._raw = response, sock, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._response.deadline - time.perf_counter()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


@contextmanager
def request(
    url: SplitResult,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str | bytes],
    *,
    seconds: float,
) -> Iterator[TimedResponse]:
    """Ask the server of `url` for `path`; the response ends `seconds` from now."""
    kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
    deadline = time.perf_counter() + seconds
    connection: Any = kind(url.netloc, timeout=seconds)
    with closing(connection):
        connection.response_class = partial(TimedResponse, deadline=deadline)
        connection.request(method, path, body, headers)
        with connection.getresponse() as response:
            yield response
