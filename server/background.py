"""Background threads that need not end before the program does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Work = tuple["Future[Any]", Callable[[], Any]]


class BackgroundThreads:
    """A thread pool that starts a thread whenever there is work and all threads are busy.

    Python waits for the standard library's pool when it exits, so a call that never returns would
    keep the process alive.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run `call` in a thread. Must be called from one thread at a time."""
        future: Future[Any] = Future()
        self._work.put((future, call))
        if not self._idle.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._run, name="issun-background", daemon=True).start()
        return future

    def close(self) -> None:
        """Let each thread end after its current call."""
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
