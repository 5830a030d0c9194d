"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.generate import Logprob, Segment
from issun.runtime.tokenizer import Tokenizer
from issun.server.answers import Events
from issun.server.calls import Chosen
from issun.server.fields import CallFields, Fields, TextFields
from issun.server.plan import Plan, plan_of
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
    asked = await read_body(request, ChatRequest)
    service.check_model(asked.model)
    plan = await service.prepare(plan_of, asked)
    answers = plan.start(service)
    usage = Usage()
    if asked.stream:
        events = as_events(_chunks(service, asked, answers, usage, plan))
        return EventStream(service, answers, events)
    try:
        choices = await unless_gone(request, _choices(service, asked, answers, usage))
    finally:
        answers.close()
    whole = head("chat.completion", "chatcmpl", service)
    figures = {"usage": usage.report(), "issun": _figures(usage, plan)}
    return json_response(whole | {"choices": choices} | figures)


async def _choices(
    service: Service, asked: ChatRequest, answers: Events, usage: Usage
) -> list[dict[str, Any]]:
    count = asked.n or 1
    fields: list[Fields] = [TextFields()] * count
    texts: list[list[str]] = [[] for _ in range(count)]
    logprobs: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    reasons: list[str | None] = [None] * count
    async for place, event in answers:
        if isinstance(event, Chosen):
            usage.add_choice(place, event.timings)
            fields[place] = CallFields(event)
        elif isinstance(event, Segment):
            usage.add(place, event)
            texts[place].append(event.text)
            logprobs[place] += _logprobs(service, asked, event)
            reasons[place] = fields[place].reason(event.finish_reason)
    return [
        {
            "index": place,
            "message": fields[place].whole("".join(texts[place])),
            "logprobs": {"content": logprobs[place], "refusal": None} if asked.logprobs else None,
            "finish_reason": reasons[place],
        }
        for place in range(count)
    ]


async def _chunks(
    service: Service, asked: ChatRequest, answers: Events, usage: Usage, plan: Plan
) -> AsyncIterator[object]:
    common = head("chat.completion.chunk", "chatcmpl", service)
    options = asked.stream_options or StreamOptions()
    if options.include_usage:
        common["usage"] = None
    begun: set[int] = set()
    fields: list[Fields] = [TextFields()] * (asked.n or 1)
    if asked.progress:  # at once, for a client that stops the answer in the middle
        told_first = {"queued": service.scheduler.queued > 0, "dropped_turns": plan.dropped_turns}
        yield common | {"choices": [], "issun": told_first}
    async for place, event in answers:
        if isinstance(event, Progress) and asked.progress and place not in begun:
            figures = {"read_tokens": event.read, "prompt_tokens": event.total, "queued": False}
            yield common | {"choices": [], "issun": figures}
        if isinstance(event, Chosen):
            usage.add_choice(place, event.timings)
            fields[place] = CallFields(event)
        if not isinstance(event, Segment):
            continue
        usage.add(place, event)
        if options.continuous_usage_stats:
            common["usage"] = usage.report()
        if place not in begun:
            begun.add(place)
            yield common | {"choices": [_delta(place, fields[place].first())]}
        logprobs = _logprobs(service, asked, event)
        if event.text or logprobs:
            choice = _delta(place, fields[place].piece(event.text) if event.text else {})
            if asked.logprobs:
                choice["logprobs"] = {"content": logprobs, "refusal": None}
            yield common | {"choices": [choice]}
        if event.finish_reason:
            reason = fields[place].reason(event.finish_reason)
            yield common | {"choices": [_delta(place, {}, reason)]}
    if options.include_usage:
        last = {"choices": [], "usage": usage.report(), "issun": _figures(usage, plan)}
        yield common | last


def _delta(place: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": place, "delta": delta, "logprobs": None, "finish_reason": reason}


def _figures(usage: Usage, plan: Plan) -> dict[str, Any]:
    return {"dropped_turns": plan.dropped_turns, **usage.speed()}


def _logprobs(service: Service, asked: ChatRequest, segment: Segment) -> list[dict[str, Any]]:
    """The dialect's entry for the segment's token, where it is asked for."""
    if not asked.logprobs or segment.logprob is None:
        return []
    logprob: Logprob = segment.logprob
    tokenizer = service.model.tokenizer
    likeliest = list(logprob.top.items())[: asked.top_logprobs or 0]
    entry = _token(tokenizer, segment.id, logprob.drawn)
    return [entry | {"top_logprobs": [_token(tokenizer, *one) for one in likeliest]}]


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    spelling = tokenizer.piece(token)
    return {
        "token": spelling.decode("utf-8", "replace"),
        "logprob": logprob,
        "bytes": list(spelling),
    }
