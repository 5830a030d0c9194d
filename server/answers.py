"""From the scheduler's thread to the event loop: the events of a request's answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from issun.runtime.generate import Segment
from issun.runtime.sampling import SamplingParams
from issun.server.requests import Event, Failed, Request, Scored
from issun.server.scheduler import Scheduler

UNREAD_SECONDS = 30.0  # without one taken, while so many wait, until a stream is given up
UNREAD_EVENTS = 256
MOST_EVENTS = 16 * UNREAD_EVENTS  # that wait, whatever is taken


@dataclass(frozen=True, slots=True)
class Job:
    """One answer of a request: prompt and parameters, and whether the prompt is scored.

    With `continued` n the prompt's last n tokens are the beginning of the answer.
    """

    prompt: list[int]
    params: SamplingParams
    score: int | None = None
    answer: bool = True
    continued: int = 0


class Events(Protocol):
    """Events of some answers by their places; `close` gives up what has not ended."""

    @property
    def unread(self) -> bool:
        """Whether so many events wait, for so long, that nobody seems to read them."""

    def __aiter__(self) -> AsyncIterator[tuple[int, object]]:
        """Events until all answers have ended; raises the error of the first that failed."""

    def close(self) -> None:
        """Give up what has not ended."""


class Answers:
    """The answers to some jobs; iterating gives (place of the job, event).

    `close` gives up what has not ended, and must be called. The error of one ends all. The
    scheduler never waits for whoever iterates, who must look at `unread` where that may take long.
    """

    def __init__(self, scheduler: Scheduler, jobs: Sequence[Job]) -> None:
        self._scheduler, self._loop = scheduler, asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._taken = self._loop.time()  # when the latest event was
        self._open = len(jobs)
        self._requests = [self._request(place, job) for place, job in enumerate(jobs)]
        scheduler.submit(self._requests)

    @property
    def unread(self) -> bool:
        """Whether so many events wait, for so long, that nobody seems to read them."""
        waiting = self._events.qsize()
        since = self._loop.time() - self._taken
        return waiting >= MOST_EVENTS or (waiting >= UNREAD_EVENTS and since >= UNREAD_SECONDS)

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        """Events until all answers have ended; raises the error of the first that failed."""
        while self._open:
            place, event = await self._events.get()
            self._taken = self._loop.time()
            if isinstance(event, Failed):
                raise event.error
            ended = isinstance(event, Segment) and event.finish_reason is not None
            scored = isinstance(event, Scored) and not self._requests[place].answer
            self._open -= ended or scored
            yield place, event

    def resume(self, place: int, job: Job) -> None:
        """Let another job go on where the one at `place` has ended, in the time of that one."""
        request = self._request(place, job)
        request.submitted = self._requests[place].submitted
        self._scheduler.resume(request)
        self._requests[place] = request
        self._open += 1

    def close(self) -> None:
        """Give up what has not ended."""
        if self._open:
            self._scheduler.cancel(self._requests)

    def _request(self, place: int, job: Job) -> Request:
        return Request(
            prompt=job.prompt,
            params=job.params,
            score=job.score,
            answer=job.answer,
            continued=job.continued,
            emit=partial(self._emit, place),
        )

    def _emit(self, place: int, event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, (place, event))
