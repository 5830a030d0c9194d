"""Workers in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from issun.cluster.driver import IN_FLIGHT, Answered, Died, Event, Failed, Ready
from issun.cluster.rows import Row
from issun.runtime.errors import IssunError

_Options = TypeVar("_Options")


class LocalWorkers:
    """Keeps `number` processes running, each with what `make(options)` returns."""

    def __init__(self, make: Callable[[_Options], Any], options: _Options, number: int) -> None:
        self._options, self._number, self._make = options, number, make
        self._context = multiprocessing.get_context("spawn")
        self._ids = count()
        self._processes: dict[int, multiprocessing.process.BaseProcess] = {}
        self._connections: dict[Any, int] = {}

    def give(self, worker: int, key: int, rows: Sequence[Row]) -> None:
        """Let a worker answer rows."""
        for pipe, owner in self._connections.items():
            if owner == worker:
                with suppress(OSError):  # it has died, which the next `wait` reports
                    pipe.send((key, rows))

    def wait(self, seconds: float) -> list[Event]:
        """Start what is missing, and return what happens within `seconds`."""
        while len(self._processes) < self._number:
            self._start()
        return [self._event(pipe) for pipe in connection.wait(list(self._connections), seconds)]

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.join()

    def _start(self) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(there, self._make, self._options), daemon=True
        )
        process.start()
        there.close()
        worker = next(self._ids)
        self._processes[worker], self._connections[here] = process, worker

    def _event(self, pipe: Any) -> Event:
        worker = self._connections[pipe]
        try:
            kind, *values = pipe.recv()
        except (EOFError, OSError):
            del self._connections[pipe]
            process = self._processes.pop(worker)
            process.join()
            return Died(worker, f"exit code {process.exitcode}")
        kinds: dict[str, Callable[..., Event]] = {
            "answered": Answered,
            "ready": Ready,
            "failed": Failed,
        }
        return kinds[kind](worker, *values)


def _serve(pipe: Connection, make: Callable[[_Options], Any], options: _Options) -> None:
    """Run a worker until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    sending = threading.Lock()

    def tell(*event: Any) -> None:
        try:
            with sending:
                pipe.send(event)
        except OSError:  # the driver has ended
            os._exit(0)

    try:
        worker = make(options)
    except IssunError as error:
        tell("failed", error)
        return

    def answer(key: int, rows: Sequence[Row]) -> None:
        try:
            try:
                event: tuple[Any, ...] = ("answered", key, worker.answer(rows))
            except IssunError as error:
                event = ("failed", error)
            tell(*event)
        except BaseException:  # the driver sees that this process ends, and repeats the rows
            traceback.print_exc()
            os._exit(1)

    tell("ready", worker.ready())
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        while True:
            try:
                pool.submit(answer, *pipe.recv())
            except (EOFError, OSError):
                os._exit(0)
