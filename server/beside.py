"""Work in threads that nobody has to wait for, neither for a result nor at the end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Work = tuple["Future[Any]", Callable[[], Any]]


class Beside:
    """Threads that begin when there is work and all are busy.

    The standard library's pool is waited for when Python ends, which work without an end prevents.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Do `call` in a thread; from one thread at a time."""
        future: Future[Any] = Future()
        self._work.put((future, call))
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._run, name="issun-beside", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end when their work does."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while work := self._work.get():
            future, call = work
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del work, future, call
            self._idle.release()
