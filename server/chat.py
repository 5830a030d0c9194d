"""`/v1/chat/completions`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.generate import Logprob, Segment
from issun.runtime.prompt import FittedPrompt
from issun.runtime.tokenizer import Tokenizer
from issun.server.answers import Answers, Job
from issun.server.errors import ApiError
from issun.server.messages import Dialogue, dialogue_of
from issun.server.requests import Progress
from issun.server.sampling import check_lengths, sampling_params
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
from issun.server.types import ChatRequest

_REMEMBERED = 1024  # conversations


async def chat_completions(request: Request) -> Response:
    """Answer the last message of a conversation."""
    service = service_of(request)
    asked = await read_body(request, ChatRequest)
    service.check_model(asked.model)
    _check(asked)
    jobs, dropped = await run_in_threadpool(_jobs, service, asked)
    answers = service.answers(jobs)
    usage = Usage(len(jobs[0].prompt))
    if asked.stream:
        return EventStream(answers, _chunks(service, asked, answers, usage, dropped))
    try:
        choices = await unless_gone(request, _choices(service, asked, answers, usage, len(jobs)))
    finally:
        answers.close()
    whole = head("chat.completion", "chatcmpl", service)
    return json_response(
        whole | {"choices": choices, "usage": usage.report(), "issun": _figures(usage, dropped)}
    )


def _check(asked: ChatRequest) -> None:
    if asked.top_logprobs and not asked.logprobs:
        raise ApiError("top_logprobs needs logprobs to be true.")
    if asked.max_tokens and asked.max_completion_tokens:
        raise ApiError("Give max_completion_tokens or max_tokens, not both.")


def _jobs(service: Service, asked: ChatRequest) -> tuple[list[Job], int]:
    """A job for each choice, and how many old turns the prompt leaves out."""
    room = service.model.decoder.n_positions
    check_lengths(asked.min_tokens, asked.max_completion_tokens or asked.max_tokens)
    most = asked.max_completion_tokens or asked.max_tokens or room
    wanted = max(1, asked.top_logprobs or 0) if asked.logprobs else 0
    fitted = fit(service, dialogue_of(asked.messages), most)
    params = sampling_params(
        service.model,
        asked,
        max_tokens=max(most, asked.min_tokens or 0),
        logprobs=wanted,
        prompt_tokens=len(fitted.ids),
    )
    return [Job(fitted.ids, some) for some in params], fitted.dropped_turns


def fit(service: Service, dialogue: Dialogue, max_new_tokens: int) -> FittedPrompt:
    """The prompt of a conversation, cut as its last one was while that still fits.

    So the prompts of a long conversation begin alike, and what was read is of use again.
    """
    prompts = service.model.prompts
    role = prompts.system_lines(dialogue.system) if dialogue.system.strip() else []
    first = repr((dialogue.system, dialogue.turns[:1])).encode("utf-8", "replace")
    key = hashlib.sha256(first).digest()
    fitted = prompts.chat(
        role,
        dialogue.turns,
        dialogue.message,
        max_new_tokens=max_new_tokens,
        dropped=service.dropped.get(key, 0),
    )
    service.dropped[key] = fitted.dropped_turns
    service.dropped.move_to_end(key)
    if len(service.dropped) > _REMEMBERED:
        service.dropped.popitem(last=False)
    return fitted


async def _choices(
    service: Service, asked: ChatRequest, answers: Answers, usage: Usage, count: int
) -> list[dict[str, Any]]:
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
    service: Service, asked: ChatRequest, answers: Answers, usage: Usage, dropped: int
) -> AsyncIterator[object]:
    common = head("chat.completion.chunk", "chatcmpl", service)
    told = bool(asked.stream_options and asked.stream_options.include_usage)
    if told:
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
    if told:
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
