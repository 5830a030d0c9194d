"""What all handlers share: the model, the scheduler, and reading and writing HTTP messages."""

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
from issun.runtime.decoding.generate import Segment, Timings
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
_Request = TypeVar("_Request")
_Body = TypeVar("_Body", bound=Body)
_LOOK = 0.5  # seconds between checks for a stalled client
# Threads that prepare requests, of which so many may wait for a compiler or for schemas.
_THREADS = MAX_WAITING + MAX_SCHEMAS + 40
_COMMENT = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Service:
    """One served model and its name; with an adapter it is named `name:adapter`."""

    model: Model
    name: str
    options: ServerOptions
    metrics: Metrics
    scheduler: Scheduler
    started: int  # seconds since 1970
    preparing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_THREADS))
    dropped: OrderedDict[bytes, int] = field(default_factory=OrderedDict)  # turns, by conversation

    @property
    def names(self) -> dict[str, str | None]:
        """The names of what is served, and the adapter of each."""
        return {self.name: None} | {f"{self.name}:{name}": name for name in self.model.adapters}

    def adapter_of(self, name: str | None) -> str | None:
        """The adapter that a request's `model` stands for; None for the bundle alone.

        Raises ModelNotFoundError if another model is requested.
        """
        if not name:
            return None
        if name not in self.names:
            raise ModelNotFoundError(
                "The model {requested!r} is not served here; this is {names}.",
                requested=name[:100],
                names=", ".join(map(repr, self.names)),
            )
        return self.names[name]

    def check_choices(self, count: int, path: str = "n") -> None:
        """Raise ApiError if a request asks, at `path`, for more answers than allowed."""
        if count > self.options.max_choices:
            raise invalid(
                path,
                "the request asks for {count} answers, it may ask for {limit} at most.",
                count=count,
                limit=self.options.max_choices,
            )

    async def prepare(self, work: Callable[[Service, _Request], _T], request: _Request) -> _T:
        """Validate and prepare a request in a thread, which may wait for a compiler."""
        return await run_sync(work, self, request, limiter=self.preparing)

    def answers(self, jobs: Sequence[Job], *, streamed: bool) -> Answers:
        """Start `jobs`; raises ApiError for too many, and what `Scheduler.submit` raises."""
        self.check_choices(len(jobs))
        return Answers(self.scheduler, jobs, streamed=streamed)


def service_of(request: Request) -> Service:
    """The service of the request's application."""
    service: Service = request.app.state.service
    return service


async def read_body(request: Request, kind: type[_Body]) -> _Body:
    """The JSON body as `kind`; raises ApiError with the path of what is wrong."""
    return parse(await request.body(), kind)


def json_response(content: object, status: int = 200, **headers: str) -> Response:
    """A JSON response in UTF-8, without unnecessary escapes."""
    return Response(
        msgspec.json.encode(content), status, headers, media_type="application/json; charset=utf-8"
    )


def error_response(error: Exception) -> Response:
    """The response for an error."""
    found = as_api_error(error)
    return json_response(error_object(found), found.status, **found.headers)


class EventStream(StreamingResponse):
    """Server-sent events; the answers are cancelled when the client disconnects or stalls.

    After `keep_alive` seconds without an event a comment is sent, since clients and proxies close
    silent connections.
    """

    def __init__(self, service: Service, answers: Events, events: AsyncIterator[bytes]) -> None:
        self._answers, self._metrics = answers, service.metrics
        self._keep_alive = service.options.keep_alive
        self._latest = 0.0  # when something was last sent
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
            self._metrics.stalled.inc()  # the connection ends without the rest of the answer
        finally:
            looking.cancel()
            comments.cancel()
            self._answers.close()

    async def _look(self, unread: asyncio.Timeout) -> None:
        """End the stream when the client stalls."""
        while not self._answers.stalled:
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
    """Chunks, and an error that ends them, as server-sent events."""
    try:
        async for chunk in chunks:
            yield b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    except Exception as error:
        yield b"data: " + msgspec.json.encode(error_object(as_api_error(error))) + b"\n\n"
    yield b"data: [DONE]\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work`, but cancel it and raise ClientDisconnect when the client disconnects."""
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


def head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    """The fields that all responses and chunks of one request begin with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


class Usage:
    """Counts the tokens of a request.

    The prompt counts once for all answers; for JSON that is generated leaf by leaf, all prompts of
    the first answer count. `prompt_tokens` is given for requests with several prompts.
    """

    def __init__(self, prompt_tokens: int | None = None) -> None:
        self._prompt_tokens = prompt_tokens
        self._choices: dict[int, Timings] = {}  # of the choice of a function, by answer
        self._timings: dict[int, Timings] = {}

    def add(self, index: int, segment: Segment) -> None:
        """Count an answer's segment."""
        self._timings[index] = segment.timings

    def add_choice(self, index: int, timings: Timings) -> None:
        """Count the tokens of the choice of a function."""
        self._choices[index] = timings

    def report(self) -> dict[str, Any]:
        """The API's usage object."""
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
        """The speed of the first answer."""
        timings = self._timings.get(0, Timings())
        return {
            "tokens_per_second": round(timings.tokens_per_second, 2),
            "time_to_first_token": round(timings.time_to_first_token, 4),
            "time_per_output_token": round(timings.time_per_output_token, 4),
        }
