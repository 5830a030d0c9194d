"""`/v1/responses`, without stored responses: each request contains the whole conversation."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.decoding.generate import Segment
from issun.server.answers import Events
from issun.server.body import invalid
from issun.server.calls import Chosen
from issun.server.errors import ApiError, as_api_error
from issun.server.items import ResponsesRequest, as_chat, with_responses_paths
from issun.server.output import CallOutput, Output, TextOutput
from issun.server.plan import Plan, make_plan
from issun.server.service import (
    EventStream,
    Service,
    Usage,
    json_response,
    read_body,
    service_of,
    unless_gone,
)


async def responses(request: Request) -> Response:
    """Answer a request, with a text or a call."""
    service = service_of(request)
    body = await read_body(request, ResponsesRequest)
    service.adapter_of(body.model)  # raises for another model, before any other work
    plan = await service.prepare(_plan, body)
    answer = _Answer(service, body, plan)
    answers = plan.start(service, streamed=bool(body.stream))
    if body.stream:
        events = _frames(answer, answers)
        return EventStream(service, answers, events)
    try:
        await unless_gone(request, _finish(answer, answers))
    finally:
        answers.close()
    return json_response(answer.report())


def _plan(service: Service, body: ResponsesRequest) -> Plan:
    chat, sources = as_chat(body)
    try:
        plan = make_plan(service, chat)
    except ApiError as error:
        raise with_responses_paths(error, sources) from error
    if plan.dropped_turns and body.truncation == "disabled":
        long = invalid("input", "it does not fit into the context, and truncation is disabled.")
        long.code = "context_length_exceeded"
        raise long
    return plan


@dataclass(slots=True)
class _Answer:
    """The response object, built up event by event, and the events of its stream."""

    service: Service
    body: ResponsesRequest
    plan: Plan
    output: Output = field(default_factory=TextOutput)
    text: str = ""
    begun: bool = False
    status: str = "in_progress"
    error: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    usage: Usage = field(default_factory=Usage)

    def add(self, event: object) -> Iterator[dict[str, Any]]:
        """The stream's events for an event of the answer."""
        if isinstance(event, Chosen):
            self.usage.add_choice(0, event.timings)
            self.output = CallOutput(event.function.name)
        if not isinstance(event, Segment):
            return
        self.usage.add(0, event)
        if not self.begun:
            self.begun = True
            yield from self.output.opening_events()
        if event.text:
            self.text += event.text
            yield self.output.delta_event(event.text)
        if event.finish_reason:
            self.status = "completed" if event.finish_reason == "stop" else "incomplete"
            yield from self.output.closing_events(self.text, self.status)
            yield self.state(self.status)

    def fail(self, error: ApiError) -> dict[str, Any]:
        """The event for an answer that failed."""
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        self.status, self.error = "failed", {"code": code, "message": str(error)}
        return self.state("failed")

    def state(self, name: str) -> dict[str, Any]:
        """An event that contains the whole response."""
        return {"type": f"response.{name}", "response": self.report()}

    def report(self) -> dict[str, Any]:
        """The response object."""
        body, params, ended = self.body, self.plan.params, self.status != "in_progress"
        cut = {"reason": "max_output_tokens"} if self.status == "incomplete" else None
        done = "completed" if self.status == "completed" else "incomplete"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "background": False,
            "error": self.error,
            "incomplete_details": cut,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": body.model or self.service.name,
            "output": [self.output.item(self.text, done)] if ended and self.begun else [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": params.temperature,
            "text": {"format": _format(body)},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": params.top_p,
            "truncation": body.truncation or "auto",
            "usage": self.usage_report() if ended else None,
            "user": body.user,
            "issun": {"dropped_turns": self.plan.dropped_turns, **self.usage.speed()},
        }

    def usage_report(self) -> dict[str, Any]:
        """The usage object of this API."""
        found = self.usage.report()
        cached = found["prompt_tokens_details"]["cached_tokens"]
        return {
            "input_tokens": found["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": found["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": found["total_tokens"],
        }


def _format(body: ResponsesRequest) -> dict[str, Any]:
    given = body.text.format if body.text else None
    if given is None:
        return {"type": "text"}
    fields = ("type", "name", "description", "schema", "strict")
    return {name: value for name in fields if (value := getattr(given, name)) is not None}


async def _finish(answer: _Answer, answers: Events) -> None:
    async for _, event in answers:
        for _ in answer.add(event):
            pass


async def _frames(answer: _Answer, answers: Events) -> AsyncIterator[bytes]:
    """The numbered server-sent events of an answer."""
    number = 0
    async for event in _events(answer, answers):
        event["sequence_number"] = number
        number += 1
        kind = event["type"].encode()
        yield b"event: " + kind + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


async def _events(answer: _Answer, answers: Events) -> AsyncIterator[dict[str, Any]]:
    yield answer.state("created")
    yield answer.state("in_progress")
    try:
        async for _, event in answers:
            for made in answer.add(event):
                yield made
    except Exception as error:
        yield answer.fail(as_api_error(error))
