"""Workers on all machines of a Ray cluster, as actors of Ray's core."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from typing import Any, TypeVar

from issun.cluster.driver import IN_FLIGHT, Answered, Died, Event, Failed, Ready
from issun.cluster.errors import BatchError
from issun.cluster.journal import Answer
from issun.cluster.loading import LoadOptions
from issun.cluster.rows import Row
from issun.runtime.errors import IssunError
from issun.runtime.files import reason_of

_CONNECT_SECONDS = 5.0
_STORE_BYTES = 80 << 20  # the least; rows and answers are small


_Options = TypeVar("_Options", bound=LoadOptions)


class _Actor:
    """A worker, which is made in a call, since Ray does not report the error of a constructor."""

    def __init__(self, make: Callable[[_Options], Any], options: _Options) -> None:
        self._make, self._options = make, options

    def ready(self) -> Any:
        self._worker = self._make(self._options)
        return self._worker.ready()

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        answers: list[Answer] = self._worker.answer(rows)
        return answers


class RayWorkers:
    """Keeps actors running, one for every `options.threads` CPUs of a cluster, at most `number`.

    Each has what `make(options)` returns. issun and the bundle must be at the same place on every
    machine. Raises BatchError if the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str,
        make: Callable[[_Options], Any],
        options: _Options,
        number: int | None = None,
    ) -> None:
        import ray  # noqa: PLC0415

        _check_address(address)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports to its maker
        self._ray, self._options, self._most = ray, options, number
        self._output = ExitStack()
        # Ray prints what it notices, such as a worker's end, which the driver handles.
        self._output.enter_context(redirect_stdout(io.StringIO()))
        own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        try:
            ray.init(
                address,
                logging_level="ERROR",
                log_to_driver=False,
                **(own if address == "local" else {}),
            )
        except Exception as error:  # Ray raises any kind
            self._output.close()
            raise _unreachable(address, error) from error
        self._actor = ray.remote(
            num_cpus=options.threads,
            max_concurrency=IN_FLIGHT,
            scheduling_strategy="SPREAD",
        )(_Actor)
        self._make = make
        self._starting: dict[Any, Any] = {}  # reference of an actor's first answer -> actor
        self._given: dict[Any, tuple[Any, int]] = {}  # reference of an answer -> actor, chunk
        self._actors: set[Any] = set()  # those that are ready

    def give(self, worker: Any, key: int, rows: Sequence[Row]) -> None:
        """Let a worker answer rows."""
        self._given[worker.answer.remote(rows)] = worker, key

    def wait(self, seconds: float) -> list[Event]:
        """Start what is missing, and return what happens within `seconds`."""
        self._start()
        references = [*self._starting, *self._given]
        if not references:  # no machine has room
            time.sleep(seconds)
            return []
        done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        if not done:
            done, _ = self._ray.wait(references, timeout=seconds)
        # The answers of an actor are lost together.
        return [event for reference in done if (event := self._event(reference))]

    def close(self) -> None:
        """End all actors and leave the cluster."""
        for actor in [*self._actors, *self._starting.values()]:
            self._ray.kill(actor)
        self._ray.shutdown()
        self._output.close()

    def _start(self) -> None:
        """Start as many actors as fit now: one that cannot be placed would wait for ever."""
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        room = cpus // (self._options.threads or 1)
        wanted = room if self._most is None else min(room, self._most)
        while len(self._actors) + len(self._starting) < wanted:
            actor = self._actor.remote(self._make, self._options)
            self._starting[actor.ready.remote()] = actor
        while self._starting and len(self._actors) + len(self._starting) > wanted:
            self._ray.kill(self._starting.pop(next(iter(self._starting))))

    def _event(self, reference: Any) -> Event | None:
        actor = self._starting.get(reference) or self._given.get(reference, (None,))[0]
        if actor is None:  # of an actor that has been given up
            return None
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayActorError as error:
            self._give_up(actor)
            return Died(actor, type(error).__name__)
        except errors.RayTaskError as error:
            self._give_up(actor)
            if isinstance(error.cause, IssunError):
                return Failed(actor, error.cause)
            return Died(actor, type(error.cause).__name__)
        if reference in self._starting:
            del self._starting[reference]
            self._actors.add(actor)
            return Ready(actor, value)
        _, key = self._given.pop(reference)
        return Answered(actor, key, value)

    def _give_up(self, actor: Any) -> None:
        self._ray.kill(actor)
        self._actors.discard(actor)
        self._starting = {r: a for r, a in self._starting.items() if a is not actor}
        self._given = {r: given for r, given in self._given.items() if given[0] is not actor}


def _check_address(address: str) -> None:
    """Raise BatchError if nothing listens at `HOST:PORT`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> BatchError:
    return BatchError(
        "There is no Ray cluster at {address}: {reason}", address=address, reason=reason_of(error)
    )
