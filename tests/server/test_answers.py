"""Events of answers on their way to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from issun.runtime.decoding.generate import FinishReason, Segment, Timings
from issun.runtime.decoding.sampling import SamplingParams
from issun.server.answers import Answers, Job
from issun.server.errors import UnavailableError
from issun.server.requests import Failed, Progress, Request


class Scheduler:
    """Takes requests, and leaves their events to the test."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> None:
        self.requests += requests


def segment(text: str, reason: FinishReason | None = None) -> Segment:
    return Segment(id=5, text=text, finish_reason=reason, timings=Timings())


async def woken(*, streamed: bool) -> tuple[int, list[str]]:
    """How often an answer of three tokens wakes the event loop, and its texts."""
    loop, scheduler, wakes = asyncio.get_running_loop(), Scheduler(), 0
    call: Any = loop.call_soon_threadsafe

    def counted(*arguments: Any) -> Any:
        nonlocal wakes
        wakes += 1
        return call(*arguments)

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
    jobs = [Job([1, 2], SamplingParams())]
    answers = Answers(scheduler, jobs, streamed=streamed)  # type: ignore[arg-type]
    (request,) = scheduler.requests
    for event in (Progress(2, 2), segment("富"), segment("士"), segment("山", "stop")):
        request.emit(event)
    events = [event async for _, event in answers]
    assert events[0] == Progress(2, 2)
    return wakes, [event.text for event in events if isinstance(event, Segment)]


def test_only_a_stream_wakes_the_event_loop_for_every_token() -> None:
    assert asyncio.run(woken(streamed=True)) == (4, ["富", "士", "山"])
    assert asyncio.run(woken(streamed=False)) == (1, ["富", "士", "山"])


async def failing() -> list[object]:
    scheduler = Scheduler()
    jobs = [Job([1, 2], SamplingParams())]
    answers = Answers(scheduler, jobs, streamed=False)  # type: ignore[arg-type]
    scheduler.requests[0].emit(segment("富"))
    scheduler.requests[0].emit(Failed(UnavailableError("The server is ending.")))
    return [event async for _, event in answers]


def test_a_failure_arrives_though_nothing_is_streamed() -> None:
    with pytest.raises(UnavailableError):
        asyncio.run(failing())
