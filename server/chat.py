"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.decoding.generate import Logprob, Segment
from issun.runtime.text.tokenizer import Tokenizer
from issun.server.answers import Events
from issun.server.calls import Chosen
from issun.server.fields import CallFields, Fields, TextFields
from issun.server.plan import Plan, make_plan
from issun.server.requests import Progress
from issun.server.service import (
    EventStream,
    Service,
    Usage,
    as_events,
    head,
    json_response,
    read_body,
    service_of,
    unless_gone,
)
from issun.server.types import ChatRequest, StreamOptions


async def chat_completions(request: Request) -> Response:
    """Answer the last message of a conversation."""
    service = service_of(request)
    body = await read_body(request, ChatRequest)
    service.adapter_of(body.model)  # raises for another model, before any other work
    plan = await service.prepare(make_plan, body)
    answers = plan.start(service, streamed=bool(body.stream))
    usage = Usage()
    if body.stream:
        events = as_events(_chunks(service, body, answers, usage, plan))
        return EventStream(service, answers, events)
    try:
        choices = await unless_gone(request, _choices(service, body, answers, usage))
    finally:
        answers.close()
    envelope = head("chat.completion", "chatcmpl", body.model or service.name)
    figures = {"usage": usage.report(), "issun": _figures(usage, plan)}
    return json_response(envelope | {"choices": choices} | figures)


async def _choices(
    service: Service, body: ChatRequest, answers: Events, usage: Usage
) -> list[dict[str, Any]]:
    count = body.n or 1
    fields: list[Fields] = [TextFields()] * count
    texts: list[list[str]] = [[] for _ in range(count)]
    logprobs: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    reasons: list[str | None] = [None] * count
    async for index, event in answers:
        if isinstance(event, Chosen):
            usage.add_choice(index, event.timings)
            fields[index] = CallFields(event)
        elif isinstance(event, Segment):
            usage.add(index, event)
            texts[index].append(event.text)
            logprobs[index] += _logprobs(service, body, event)
            reasons[index] = fields[index].finish_reason(event.finish_reason)
    return [
        {
            "index": index,
            "message": fields[index].message("".join(texts[index])),
            "logprobs": {"content": logprobs[index], "refusal": None} if body.logprobs else None,
            "finish_reason": reasons[index],
        }
        for index in range(count)
    ]


async def _chunks(
    service: Service, body: ChatRequest, answers: Events, usage: Usage, plan: Plan
) -> AsyncIterator[object]:
    common = head("chat.completion.chunk", "chatcmpl", body.model or service.name)
    options = body.stream_options or StreamOptions()
    if options.include_usage:
        common["usage"] = None
    begun: set[int] = set()
    fields: list[Fields] = [TextFields()] * (body.n or 1)
    if body.progress:  # at the start, since the client may stop the answer later
        initial = {"queued": service.scheduler.queued > 0, "dropped_turns": plan.dropped_turns}
        yield common | {"choices": [], "issun": initial}
    async for index, event in answers:
        if isinstance(event, Progress) and body.progress and index not in begun:
            figures = {"read_tokens": event.read, "prompt_tokens": event.total, "queued": False}
            yield common | {"choices": [], "issun": figures}
        if isinstance(event, Chosen):
            usage.add_choice(index, event.timings)
            fields[index] = CallFields(event)
        if not isinstance(event, Segment):
            continue
        usage.add(index, event)
        if options.continuous_usage_stats:
            common["usage"] = usage.report()
        if index not in begun:
            begun.add(index)
            yield common | {"choices": [_delta(index, fields[index].first_delta())]}
        logprobs = _logprobs(service, body, event)
        if event.text or logprobs:
            choice = _delta(index, fields[index].delta(event.text) if event.text else {})
            if body.logprobs:
                choice["logprobs"] = {"content": logprobs, "refusal": None}
            yield common | {"choices": [choice]}
        if event.finish_reason:
            reason = fields[index].finish_reason(event.finish_reason)
            yield common | {"choices": [_delta(index, {}, reason)]}
    if options.include_usage:
        last = {"choices": [], "usage": usage.report(), "issun": _figures(usage, plan)}
        yield common | last


def _delta(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _figures(usage: Usage, plan: Plan) -> dict[str, Any]:
    return {"dropped_turns": plan.dropped_turns, **usage.speed()}


def _logprobs(service: Service, body: ChatRequest, segment: Segment) -> list[dict[str, Any]]:
    """The logprobs entry for the segment's token, if requested."""
    if not body.logprobs or segment.logprob is None:
        return []
    logprob: Logprob = segment.logprob
    tokenizer = service.model.tokenizer
    top = list(logprob.top.items())[: body.top_logprobs or 0]
    entry = _token(tokenizer, segment.id, logprob.drawn)
    return [entry | {"top_logprobs": [_token(tokenizer, *one) for one in top]}]


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    spelling = tokenizer.piece(token)
    return {
        "token": spelling.decode("utf-8", "replace"),
        "logprob": logprob,
        "bytes": list(spelling),
    }
