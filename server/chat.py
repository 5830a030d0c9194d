"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.errors import ParameterError
from issun.runtime.generate import Logprob, Segment
from issun.runtime.sampling import SamplingParams
from issun.runtime.tokenizer import Tokenizer
from issun.server.answers import Events, Job
from issun.server.body import invalid, refused
from issun.server.filling import json_answers
from issun.server.fitting import fit
from issun.server.formats import wanted_format
from issun.server.messages import Dialogue, dialogue_of
from issun.server.requests import Progress
from issun.server.sampling import (
    check_ends,
    constraint_of,
    most_tokens,
    room_behind,
    sampling_params,
)
from issun.server.service import (
    EventStream,
    Service,
    Usage,
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
    _check(asked)
    answers, dropped = await _start(service, asked)
    usage = Usage()
    if asked.stream:
        chunks = _chunks(service, asked, answers, usage, dropped)
        return EventStream(answers, chunks, keep_alive=service.options.keep_alive)
    try:
        choices = await unless_gone(request, _choices(service, asked, answers, usage))
    finally:
        answers.close()
    whole = head("chat.completion", "chatcmpl", service)
    return json_response(
        whole | {"choices": choices, "usage": usage.report(), "issun": _figures(usage, dropped)}
    )


def _check(asked: ChatRequest) -> None:
    if asked.top_logprobs and not asked.logprobs:
        raise invalid("top_logprobs", "it needs logprobs to be true.")
    _check_tools(asked)


def _check_tools(asked: ChatRequest) -> None:
    """Raise ApiError when a request asks for what tools are for."""
    for tools, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        if getattr(asked, choice) == "none":
            continue
        if getattr(asked, tools):
            raise refused(
                f"{tools}[0]", "tools are not supported. Send {choice} none.", choice=choice
            )
        if getattr(asked, choice) not in (None, "auto"):
            raise invalid(choice, "there are no {tools} to choose from.", tools=tools)


async def _start(service: Service, asked: ChatRequest) -> tuple[Events, int]:
    """Start an answer for each choice; gives how many old turns the prompt leaves out, too."""
    form = wanted_format(asked)
    if form is None or form.kind != "schema":
        jobs, dropped = await run_in_threadpool(_jobs, service, asked)
        return service.answers(jobs), dropped
    check_ends(asked, form)
    dialogue, params = await run_in_threadpool(_asked, service, asked)
    try:
        return await json_answers(service, dialogue, form.value, params)
    except ParameterError as error:
        raise invalid(form.place, "{reason}", reason=error) from error


def _jobs(service: Service, asked: ChatRequest) -> tuple[list[Job], int]:
    """A job for each choice, and how many old turns the prompt leaves out."""
    dialogue, params = _asked(service, asked)
    fitted = fit(service, dialogue, params[0].max_new_tokens)
    room = room_behind(service.model, fitted.ids, params[0])
    constraint = constraint_of(service.model, asked, room)
    jobs = [
        Job(fitted.ids, replace(some, constraint=constraint), continued=fitted.continued)
        for some in params
    ]
    return jobs, fitted.dropped_turns


def _asked(service: Service, asked: ChatRequest) -> tuple[Dialogue, list[SamplingParams]]:
    """The conversation, and the parameters of each choice."""
    most = most_tokens(service.model, asked)
    if most == 0:
        raise invalid("max_tokens", "it is 0: it must be 1 or more, or -1 for as many as fit.")
    most = most or service.model.decoder.n_positions
    wanted = max(1, asked.top_logprobs or 0) if asked.logprobs else 0
    params = sampling_params(
        service.model,
        asked,
        max_tokens=max(most, asked.min_tokens or 0),
        logprobs=wanted,
    )
    dialogue = dialogue_of(asked.messages)
    _check_continued(asked, dialogue.beginning)
    return dialogue, params


def _check_continued(asked: ChatRequest, beginning: str) -> None:
    """Raise ApiError where a request wants the last message to be continued that never is.

    Or not to be continued, when it is the assistant's, which always is.
    """
    goes_on = bool(beginning)
    if asked.continue_final_message not in (None, goes_on):
        place = "continue_final_message"
    elif asked.add_generation_prompt not in (None, not goes_on):
        place = "add_generation_prompt"
    else:
        return
    raise refused(place, "the last message is continued if it is the assistant's. Leave it out.")


async def _choices(
    service: Service, asked: ChatRequest, answers: Events, usage: Usage
) -> list[dict[str, Any]]:
    count = asked.n or 1
    texts: list[list[str]] = [[] for _ in range(count)]
    logprobs: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    reasons: list[str | None] = [None] * count
    async for place, event in answers:
        if isinstance(event, Segment):
            usage.add(place, event)
            texts[place].append(event.text)
            logprobs[place] += _logprobs(service, asked, event)
            reasons[place] = event.finish_reason
    return [
        {
            "index": place,
            "message": {"role": "assistant", "content": "".join(texts[place]), "refusal": None},
            "logprobs": {"content": logprobs[place], "refusal": None} if asked.logprobs else None,
            "finish_reason": reasons[place],
        }
        for place in range(count)
    ]


async def _chunks(
    service: Service,
    asked: ChatRequest,
    answers: Events,
    usage: Usage,
    dropped: int,
) -> AsyncIterator[object]:
    common = head("chat.completion.chunk", "chatcmpl", service)
    options = asked.stream_options or StreamOptions()
    if options.include_usage:
        common["usage"] = None
    begun: set[int] = set()
    if asked.progress:  # at once, for a client that stops the answer in the middle
        told_first = {"queued": service.scheduler.queued > 0, "dropped_turns": dropped}
        yield common | {"choices": [], "issun": told_first}
    async for place, event in answers:
        if isinstance(event, Progress) and asked.progress and place not in begun:
            figures = {"read_tokens": event.read, "prompt_tokens": event.total, "queued": False}
            yield common | {"choices": [], "issun": figures}
        if not isinstance(event, Segment):
            continue
        usage.add(place, event)
        if options.continuous_usage_stats:
            common["usage"] = usage.report()
        if place not in begun:
            begun.add(place)
            yield common | {"choices": [_delta(place, {"role": "assistant", "content": ""})]}
        logprobs = _logprobs(service, asked, event)
        if event.text or logprobs:
            choice = _delta(place, {"content": event.text} if event.text else {})
            if asked.logprobs:
                choice["logprobs"] = {"content": logprobs, "refusal": None}
            yield common | {"choices": [choice]}
        if event.finish_reason:
            yield common | {"choices": [_delta(place, {}, event.finish_reason)]}
    if options.include_usage:
        last = {"choices": [], "usage": usage.report(), "issun": _figures(usage, dropped)}
        yield common | last


def _delta(place: int, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": place, "delta": delta, "logprobs": None, "finish_reason": reason}


def _figures(usage: Usage, dropped: int) -> dict[str, Any]:
    return {"dropped_turns": dropped, **usage.speed()}


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
