"""What every handler works with: the model, its scheduler, and how requests come in and go out."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from issun.runtime.constraint.compiling import MAX_WAITING
from issun.runtime.constraint.effort import MAX_SCHEMAS
from issun.runtime.generate import Segment, Timings
from issun.runtime.model import Model
from issun.server.answers import Answers, Events, Job
from issun.server.body import invalid, parse
from issun.server.errors import (
    ModelNotFoundError,
    as_api_error,
    error_object,
)
from issun.server.metrics import Metrics
from issun.server.options import ServerOptions
from issun.server.scheduler import Scheduler
from issun.server.types import Body

_T = TypeVar("_T")
_Asked = TypeVar("_Asked")
_Body = TypeVar("_Body", bound=Body)
_LOOK = 0.5  # seconds between looks at what waits to be sent
_THREADS = MAX_WAITING + MAX_SCHEMAS + 40  # that prepare requests; so many may take long
_COMMENT = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Service:
    """One model that is served, under one name."""

    model: Model
    name: str
    options: ServerOptions
    metrics: Metrics
    scheduler: Scheduler
    started: int  # seconds since 1970
    preparing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_THREADS))
    dropped: OrderedDict[bytes, int] = field(default_factory=OrderedDict)  # turns, by conversation

    def check_model(self, name: str | None) -> None:
        """Raise ModelNotFoundError when another model is asked for."""
        if name not in (None, "", self.name):
            raise ModelNotFoundError(
                "The model {asked!r} is not served here; this is {name!r}.",
                asked=str(name)[:100],
                name=self.name,
            )

    def check_choices(self, count: int, place: str = "n") -> None:
        """Raise ApiError when a request asks for more answers than one may, at a path of it."""
        if count > self.options.max_choices:
            raise invalid(
                place,
                "the request asks for {asked} answers, it may ask for {limit} at most.",
                asked=count,
                limit=self.options.max_choices,
            )

    async def prepare(self, work: Callable[[Service, _Asked], _T], asked: _Asked) -> _T:
        """Check and prepare a request in a thread; those that wait for a compiler block nobody."""
        return await run_sync(work, self, asked, limiter=self.preparing)

    def answers(self, jobs: Sequence[Job]) -> Answers:
        """Start `jobs`; raises ApiError when there are too many, and as `submit` does."""
        self.check_choices(len(jobs))
        return Answers(self.scheduler, jobs)


def service_of(request: Request) -> Service:
    """The service that the app was made with."""
    service: Service = request.app.state.service
    return service


async def read_body(request: Request, kind: type[_Body]) -> _Body:
    """The JSON body as `kind`; raises ApiError naming what is wrong and where."""
    return parse(await request.body(), kind)


def json_response(content: object, status: int = 200, **headers: str) -> Response:
    """JSON in UTF-8, with no character escaped that need not be."""
    return Response(
        msgspec.json.encode(content), status, headers, media_type="application/json; charset=utf-8"
    )


def error_response(error: Exception) -> Response:
    """The dialect's error object with its status."""
    found = as_api_error(error)
    return json_response(error_object(found), found.status, **found.headers)


class EventStream(StreamingResponse):
    """Server-sent events of some answers, given up when the client goes or does not read them.

    While no event comes a comment does, every `keep_alive` seconds: clients and proxies hang up on
    a connection that is silent.
    """

    def __init__(self, service: Service, answers: Events, events: AsyncIterator[bytes]) -> None:
        self._answers, self._metrics = answers, service.metrics
        self._keep_alive = service.options.keep_alive
        self._latest = 0.0  # when something was sent
        super().__init__(
            events,
            media_type="text/event-stream; charset=utf-8",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        now = asyncio.get_running_loop().time
        self._latest = now()
        comments = asyncio.create_task(self._comment(send))

        async def sending(message: Message) -> None:
            self._latest = now()
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                comments.cancel()  # nothing may follow the last part
            await send(message)

        try:
            async with asyncio.timeout(None) as unread:
                looking = asyncio.create_task(self._look(unread))
                await super().__call__(scope, receive, sending)
        except TimeoutError:
            if not unread.expired():
                raise
            self._metrics.unread.inc()  # and the connection ends without the rest of the answer
        finally:
            looking.cancel()
            comments.cancel()
            self._answers.close()

    async def _look(self, unread: asyncio.Timeout) -> None:
        """End the stream when nobody reads it."""
        while not self._answers.unread:
            await asyncio.sleep(_LOOK)
        unread.reschedule(0.0)

    async def _comment(self, send: Send) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._latest + self._keep_alive - now())
            if now() >= self._latest + self._keep_alive:
                self._latest = now()
                await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})


async def as_events(chunks: AsyncIterator[object]) -> AsyncIterator[bytes]:
    """Chunks, and an error that ends them, as the dialect's events."""
    try:
        async for chunk in chunks:
            yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    except Exception as error:
        yield b"data: " + msgspec.json.encode(error_object(as_api_error(error))) + b"\n\n"
    yield b"data: [DONE]\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Do `work`, but give it up and raise ClientDisconnect when the client goes away."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def head(kind: str, prefix: str, service: Service) -> dict[str, Any]:
    """What every answer and chunk of one request begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": service.name,
    }


class Usage:
    """Counts the tokens of a request's answers.

    Several answers to one prompt read it once; of JSON that is filled leaf by leaf all the prompts
    of the first answer count. `prompt_tokens` is for requests with several prompts.
    """

    def __init__(self, prompt_tokens: int | None = None) -> None:
        self._prompt_tokens = prompt_tokens
        self._choices: dict[int, Timings] = {}  # of functions, by the place of the answer
        self._timings: dict[int, Timings] = {}

    def add(self, place: int, segment: Segment) -> None:
        """Note an answer's latest segment."""
        self._timings[place] = segment.timings

    def add_choice(self, place: int, timings: Timings) -> None:
        """Note what it took an answer to say which function it calls."""
        self._choices[place] = timings

    def report(self) -> dict[str, Any]:
        """The dialect's usage object."""
        choices = self._choices.values()
        new = sum(timings.new_tokens for timings in [*self._timings.values(), *choices])
        first = [found[0] for found in (self._choices, self._timings) if 0 in found]
        read = self._prompt_tokens
        if read is None:
            read = sum(timings.prompt_tokens for timings in first)
        reused = sum(timings.reused_tokens for timings in first)
        return {
            "prompt_tokens": read,
            "completion_tokens": new,
            "total_tokens": read + new,
            "prompt_tokens_details": {"cached_tokens": reused},
        }

    def speed(self) -> dict[str, float]:
        """How fast the first answer came."""
        timings = self._timings.get(0, Timings())
        return {
            "tokens_per_second": round(timings.tokens_per_second, 2),
            "time_to_first_token": round(timings.time_to_first_token, 4),
        }
