"""`/v1/completions`: text or ids go on, in no template; with `echo` they are scored too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.constraint import Constraint
from issun.runtime.generate import Logprob, Segment
from issun.runtime.model import Model
from issun.runtime.tokenizer import Tokenizer
from issun.server.answers import Answers, Job
from issun.server.body import invalid
from issun.server.formats import wanted_format
from issun.server.requests import Scored
from issun.server.sampling import (
    check_ends,
    make_constraint,
    most_tokens,
    room_behind,
    sampling_params,
)
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
from issun.server.types import CompletionRequest, StreamOptions

_DEFAULT_TOKENS = 16  # as the dialect has it


async def completions(request: Request) -> Response:
    """Go on with one or several prompts."""
    service = service_of(request)
    asked = await read_body(request, CompletionRequest)
    service.check_model(asked.model)
    jobs = await service.prepare(_jobs, asked)
    choices = [_Choice(service.model.tokenizer, asked, job) for job in jobs]
    answers = service.answers(jobs)
    prompts = jobs[:: asked.n or 1]
    usage = Usage(sum(len(job.prompt) for job in prompts))
    if asked.stream:
        events = as_events(_chunks(service, asked, answers, choices, usage))
        return EventStream(service, answers, events)
    try:
        await unless_gone(request, _finish(answers, choices, usage))
    finally:
        answers.close()
    whole = head("text_completion", "cmpl", service)
    found = [choice.whole(place) for place, choice in enumerate(choices)]
    return json_response(whole | {"choices": found, "usage": usage.report()})


def _jobs(service: Service, asked: CompletionRequest) -> list[Job]:
    """`n` jobs for each prompt, in the order of the prompts."""
    prompts = _prompts(service.model.tokenizer, asked.prompt)
    several = len(prompts) > 1
    service.check_choices(len(prompts) * (asked.n or 1), "prompt" if several else "n")
    most = most_tokens(service.model, asked)
    most = _DEFAULT_TOKENS if most is None else most
    if most == 0 and not asked.echo:
        raise invalid("max_tokens", "it is 0 without echo: there is nothing to give.")
    wanted = 0 if asked.logprobs is None else max(1, asked.logprobs)
    params = sampling_params(
        service.model,
        asked,
        max_tokens=max(most, asked.min_tokens or 0, 1),
        logprobs=wanted,
    )
    room = room_behind(service.model, max(prompts, key=len, default=[]), params[0])
    constraint = _constraint(service.model, asked, room)
    params = [replace(some, constraint=constraint) for some in params]
    scored = asked.logprobs if asked.echo and asked.logprobs is not None else None
    return [
        Job(prompt, some, None if scored is None else max(1, scored), answer=most > 0)
        for prompt in prompts
        for some in params
    ]


def _constraint(model: Model, asked: CompletionRequest, room: int) -> Constraint | None:
    wanted = wanted_format(asked)
    if wanted is None:
        return None
    check_ends(asked, wanted.place)
    return make_constraint(model, wanted, room)


def _prompts(
    tokenizer: Tokenizer, prompt: str | Sequence[int | str | list[int]]
) -> list[list[int]]:
    """Ids of each prompt: a text, one list of ids, or a list of texts or of lists of ids."""
    if isinstance(prompt, str):
        return [tokenizer.encode(prompt)]
    ids = [part for part in prompt if isinstance(part, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids:
        raise invalid("prompt", "it mixes ids with texts or lists: give one kind.")
    return [
        tokenizer.encode(part) if isinstance(part, str) else part
        for part in prompt
        if not isinstance(part, int)
    ]


async def _finish(answers: Answers, choices: Sequence[_Choice], usage: Usage) -> None:
    async for place, event in answers:
        if isinstance(event, Scored):
            choices[place].add_prompt(event.logprobs)
        elif isinstance(event, Segment):
            usage.add(place, event)
            choices[place].add(event)


async def _chunks(
    service: Service,
    asked: CompletionRequest,
    answers: Answers,
    choices: Sequence[_Choice],
    usage: Usage,
) -> AsyncIterator[object]:
    common = head("text_completion", "cmpl", service)
    options = asked.stream_options or StreamOptions()
    if options.include_usage:
        common["usage"] = None
    async for place, event in answers:
        choice = choices[place]
        if isinstance(event, Scored):
            choice.add_prompt(event.logprobs)
        elif isinstance(event, Segment):
            usage.add(place, event)
            choice.add(event)
            if options.continuous_usage_stats:
                common["usage"] = usage.report()
        if new := choice.take(place):
            yield common | {"choices": [new]}
    if options.include_usage:
        yield common | {"choices": [], "usage": usage.report()}


class _Choice:
    """One choice as it grows: text, and the dialect's logprobs lists where they are asked for."""

    def __init__(self, tokenizer: Tokenizer, asked: CompletionRequest, job: Job) -> None:
        self._tokenizer, self._asked, self._prompt = tokenizer, asked, job.prompt
        self._text = tokenizer.decode(job.prompt) if asked.echo else ""
        self._offset = 0
        self._answer = job.answer
        self._reason: str | None = None
        self._logprobs: dict[str, list[Any]] = _empty()

    def add_prompt(self, logprobs: Sequence[Logprob | None]) -> None:
        """Note the scores of the prompt's own tokens, as far as these were asked for."""
        for token, logprob in zip(self._prompt, logprobs, strict=False):
            self._add_token(token, logprob)
        if not self._answer:
            self._reason = "length"

    def add(self, segment: Segment) -> None:
        """Note a token of the answer; the end token has logprobs, but no text."""
        self._text += segment.text
        self._reason = segment.finish_reason
        if segment.logprob is not None:
            self._add_token(segment.id, segment.logprob)

    def _add_token(self, token: int, logprob: Logprob | None) -> None:
        lists, spelled = self._logprobs, self._spell(token)
        lists["tokens"].append(spelled)
        lists["token_logprobs"].append(logprob.drawn if logprob else None)
        lists["top_logprobs"].append(self._top(logprob) if logprob else None)
        lists["text_offset"].append(self._offset)
        self._offset += len(spelled)

    def _top(self, logprob: Logprob) -> dict[str, float]:
        """By spelling; of ids that are spelled alike the likeliest counts."""
        top: dict[str, float] = {}
        for token, value in list(logprob.top.items())[: self._asked.logprobs]:
            top.setdefault(self._spell(token), value)
        return top

    def _spell(self, token: int) -> str:
        return self._tokenizer.piece(token).decode("utf-8", "replace")

    def whole(self, place: int) -> dict[str, Any]:
        """The choice as the dialect has it."""
        return {
            "index": place,
            "text": self._text,
            "logprobs": None if self._asked.logprobs is None else self._logprobs,
            "finish_reason": self._reason,
        }

    def take(self, place: int) -> dict[str, Any] | None:
        """What is new since the last call; None when nothing is."""
        new = self.whole(place)
        if not (self._text or self._reason or self._logprobs["tokens"]):
            return None
        self._text, self._logprobs = "", _empty()
        return new


def _empty() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
