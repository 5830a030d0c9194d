"""Hands the rows of a batch to workers, and keeps their answers.

A chunk of rows is lost with its worker and given to another one. After that it is alone with its
worker, so that what ends the worker is in this chunk; a chunk that failed three times is divided,
down to the row, which gets an error instead of an answer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from typing import Any, NamedTuple, Protocol

from issun.cluster.errors import BatchError
from issun.cluster.journal import Answer
from issun.cluster.rows import Row
from issun.runtime.errors import IssunError

IN_FLIGHT = 3  # chunks of a worker: the next ones fill the slots that short answers leave
_FAILURES = 3  # of a chunk before it is divided, and of starts before a run without workers ends
_REPEAT_SECONDS = 30.0  # until an idle worker repeats what another one has not answered
_WAIT = 0.5  # seconds
_CHUNK_BYTES = 32 << 10  # all chunks of a worker fit into a pipe, even if it has stopped reading


class Ready(NamedTuple):
    """A worker can be given rows."""

    worker: Any
    info: Any


class Answered(NamedTuple):
    """A worker has answered the chunk `key`."""

    worker: Any
    key: int
    answers: list[Answer]


class Died(NamedTuple):
    """A worker has ended or cannot be reached."""

    worker: Any
    reason: str


class Failed(NamedTuple):
    """A worker cannot start or continue, and another one could not either."""

    worker: Any
    error: IssunError


Event = Ready | Answered | Died | Failed


class Workers(Protocol):
    """A pool of workers."""

    def wait(self, seconds: float) -> list[Event]:
        """Start what is missing, and return what happens within `seconds`."""

    def give(self, worker: Any, key: int, rows: Sequence[Row]) -> None:
        """Let a worker that is ready answer rows; does not wait."""

    def close(self) -> None:
        """End all workers."""


class Store(Protocol):
    """Keeps the answers to the rows of a batch."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    @property
    def done(self) -> int:
        """How many rows have been answered."""

    @property
    def failed(self) -> int:
        """How many of these have errors."""

    @property
    def complete(self) -> bool:
        """Whether every row has been answered."""

    def __contains__(self, index: int) -> bool:
        """Whether a row has been answered."""

    def add(self, answers: Iterable[Answer]) -> None:
        """Keep answers, except for rows that have been answered."""


class Progress(NamedTuple):
    """How far a batch is: rows answered, of how many, with errors, and new tokens of this run.

    `workers` are ready.
    """

    done: int
    rows: int
    failed: int
    tokens: int
    workers: int = 0


@dataclass(slots=True)
class _Chunk:
    rows: list[Row]
    failures: int = 0
    given: float = 0.0  # when it was first given to a worker
    workers: set[Any] = field(default_factory=set)


def rows_of_a_chunk(rows: int, workers: int, slots: int) -> int:
    """Return how many rows a chunk has: as many as a worker's slots, fewer for a small batch.

    Otherwise the first worker would be given all of a small batch.
    """
    return min(slots, max(1, ceil(rows / (workers * IN_FLIGHT))))


class Driver:
    """Answers all rows of an input that the store does not have."""

    def __init__(
        self,
        rows: Iterator[Row],
        store: Store,
        workers: Workers,
        *,
        chunk_rows: int,
        make_error: Callable[[Row], Answer],
        check: Callable[[Any], object],
        in_flight: int = IN_FLIGHT,
    ) -> None:
        """`check` raises for a worker that must not take part; `make_error` makes a row's error.

        A worker is given `in_flight` chunks, at most IN_FLIGHT.
        """
        self._chunks = _divide(rows, store, chunk_rows)
        self._store, self._workers, self._in_flight = store, workers, in_flight
        self._make_error, self._check = make_error, check
        self._keys = count()
        self._given: dict[int, _Chunk] = {}
        self._held: dict[Any, set[int]] = {}  # chunks of each worker that is ready
        self._suspects: deque[_Chunk] = deque()
        self._failed_starts = 0
        self._tokens = 0

    def run(self, report: Callable[[Progress], object]) -> Progress:
        """Answer the rows; `report` is called about twice a second.

        Raises BatchError if no worker can start, the error of a worker that failed, and what the
        store raises.
        """
        try:
            while not self._store.complete:
                answers: list[Answer] = []
                for event in self._workers.wait(_WAIT):
                    answers += self._take(event)
                self._tokens += sum(a.tokens for a in answers if a.row not in self._store)
                self._store.add(answers)
                for worker in self._held:
                    self._hand_out(worker)
                report(self._progress)
        finally:  # also of an interrupted run
            report(self._progress)
        return self._progress

    @property
    def _progress(self) -> Progress:
        store = self._store
        return Progress(store.done, store.rows, store.failed, self._tokens, len(self._held))

    def _take(self, event: Event) -> list[Answer]:
        """Note what has happened; return what can be written."""
        match event:
            case Ready(worker, info):
                self._check(info)
                self._held[worker] = set()
                self._failed_starts = 0
            case Answered(worker, key, answers):
                self._held[worker].discard(key)
                self._given.pop(key, None)
                return answers
            case Failed(_, error):
                raise error
            case Died(worker, reason):
                if not self._held:  # others would go on without it
                    self._count_failed_start(reason)
                return self._lose(worker)
        return []

    def _count_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts == _FAILURES:
            raise BatchError(
                "A worker ended {count} times before it had loaded the bundle ({reason}): there "
                "may be too little memory. Use fewer --workers.",
                count=_FAILURES,
                reason=reason,
            )

    def _hand_out(self, worker: Any) -> None:
        while taken := self._next(worker):
            key, chunk = taken
            chunk.workers.add(worker)
            self._held[worker].add(key)
            self._given[key] = chunk
            self._workers.give(worker, key, chunk.rows)

    def _next(self, worker: Any) -> tuple[int, _Chunk] | None:
        """The next chunk for a worker, unless it has enough."""
        held = self._held[worker]
        alone = any(self._given[key].failures for key in held if key in self._given)
        if alone or len(held) >= self._in_flight:
            return None
        if self._suspects and not held:
            chunk: _Chunk | None = self._suspects.popleft()
        else:
            chunk = next(self._chunks, None)
        if chunk:
            chunk.given = time.monotonic()
            return next(self._keys), chunk
        return None if held else self._silent()

    def _silent(self) -> tuple[int, _Chunk] | None:
        """The oldest chunk that one worker alone has had for long."""
        before = time.monotonic() - _REPEAT_SECONDS
        for key, chunk in self._given.items():
            if chunk.given < before and len(chunk.workers) == 1:
                return key, chunk
        return None

    def _lose(self, worker: Any) -> list[Answer]:
        """Note that a worker has ended; return errors for rows that no worker survives."""
        errors: list[Answer] = []
        for key in self._held.pop(worker, ()):
            chunk = self._given.get(key)
            if chunk is None:
                continue
            chunk.workers.discard(worker)
            if chunk.workers:
                continue
            del self._given[key]
            chunk.failures += 1
            if chunk.failures < _FAILURES:
                self._suspects.append(chunk)
            elif len(chunk.rows) == 1:
                errors.append(self._make_error(chunk.rows[0]))
            else:
                self._suspects += _halves(chunk)
        return errors


def _halves(chunk: _Chunk) -> list[_Chunk]:
    middle = len(chunk.rows) // 2
    parts = chunk.rows[:middle], chunk.rows[middle:]
    # One failure more divides a half again, but a single row fails three times in all.
    return [_Chunk(part, _FAILURES - 1 if len(part) > 1 else 1) for part in parts]


def _divide(rows: Iterator[Row], store: Store, size: int) -> Iterator[_Chunk]:
    """Chunks of the rows that have no answer yet."""
    chunk: list[Row] = []
    length = 0
    for row in rows:
        if row[0] in store:
            continue
        if chunk and (len(chunk) == size or length + len(row[1]) > _CHUNK_BYTES):
            yield _Chunk(chunk)
            chunk, length = [], 0
        chunk.append(row)
        length += len(row[1])
    if chunk:
        yield _Chunk(chunk)
