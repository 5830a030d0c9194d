"""Passes the events of a request's answers from the scheduler's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from issun.runtime.decoding.generate import Segment
from issun.runtime.decoding.sampling import SamplingParams
from issun.server.requests import Event, Failed, Request, Scored
from issun.server.scheduler import Scheduler

STALL_SECONDS = (
    30.0  # a client that takes no event for so long, while STALL_EVENTS wait, is stalled
)
STALL_EVENTS = 256
MAX_EVENTS = 16 * STALL_EVENTS  # a client with so many waiting events is stalled in any case


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to generate for a request.

    `score` n asks for the log-probabilities of the prompt's tokens and the n most likely ones at
    each position; without `answer` nothing is generated after that. The last `continued` tokens
    of the prompt are the beginning of the answer. `texts` are those of the conversation so far.
    `adapter` is the name of a loaded one.
    """

    prompt: list[int]
    params: SamplingParams
    score: int | None = None
    answer: bool = True
    continued: int = 0
    texts: tuple[str, ...] = ()
    adapter: str | None = None


class Events(Protocol):
    """The events of several answers, each with the index of its answer."""

    @property
    def stalled(self) -> bool:
        """Whether the client seems to have stopped reading."""

    def __aiter__(self) -> AsyncIterator[tuple[int, object]]:
        """Events until all answers have ended; raises the error of the first that failed."""

    def close(self) -> None:
        """Cancel the answers that have not ended."""


class Answers:
    """The answers to several jobs; iterating yields (index of the job, event).

    `close` must be called. The first error ends all answers. The scheduler never waits for the
    consumer, so a consumer that may be slow has to check `stalled`. Unless the answers are
    streamed, events come when an answer ends: waking the event loop for every token costs time.
    """

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job], *, streamed: bool) -> None:
        self._scheduler, self._loop = scheduler, asyncio.get_running_loop()
        self._streamed = streamed
        self._held: deque[tuple[int, Event]] = deque()  # until the event loop takes them
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._taken = self._loop.time()  # when the last event was
        self._open = len(jobs)
        self._requests = [self._request(index, job) for index, job in enumerate(jobs)]
        scheduler.submit(self._requests)

    @property
    def stalled(self) -> bool:
        """Whether the client seems to have stopped reading."""
        waiting = self._events.qsize()
        since = self._loop.time() - self._taken
        return waiting >= MAX_EVENTS or (waiting >= STALL_EVENTS and since >= STALL_SECONDS)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        """Events until all answers have ended; raises the error of the first that failed."""
        while self._open:
            index, event = await self._events.get()
            self._taken = self._loop.time()
            if isinstance(event, Failed):
                raise event.error
            ended = _is_last(event)
            scored = isinstance(event, Scored) and not self._requests[index].answer
            self._open -= ended or scored
            yield index, event

    def resume(self, index: int, job: Job) -> None:
        """Continue answer `index`, whose job has ended, with another job and the same deadline."""
        request = self._request(index, job)
        request.submitted = self._requests[index].submitted
        self._scheduler.resume(request)
        self._requests[index] = request
        self._open += 1

    def close(self) -> None:
        """Cancel the answers that have not ended."""
        if self._open:
            self._scheduler.cancel(self._requests)

    def _request(self, index: int, job: Job) -> Request:
        return Request(
            prompt=job.prompt,
            params=job.params,
            score=job.score,
            answer=job.answer,
            continued=job.continued,
            texts=job.texts,
            adapter=job.adapter,
            emit=partial(self._emit, index),
        )

    def _emit(self, index: int, event: Event) -> None:
        self._held.append((index, event))
        if self._streamed or isinstance(event, Failed | Scored) or _is_last(event):
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        while self._held:
            self._events.put_nowait(self._held.popleft())


def _is_last(event: Event) -> bool:
    """Whether an answer ends with this token."""
    return isinstance(event, Segment) and event.finish_reason is not None
