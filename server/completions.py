"""`/v1/completions`: continues text or ids without a template; `echo` can score the prompt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from issun.runtime.constraint.matching import Constraint
from issun.runtime.decoding.generate import Logprob, Segment
from issun.runtime.model import Model
from issun.runtime.text.stream import Offsets
from issun.server.answers import Answers, Job
from issun.server.body import invalid
from issun.server.formats import requested_format
from issun.server.requests import Scored
from issun.server.sampling import (
    check_ignore_eos,
    make_constraint,
    requested_max_tokens,
    sampling_params,
    tokens_left,
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

_DEFAULT_TOKENS = 16  # the API's default


async def completions(request: Request) -> Response:
    """Continue one or several prompts."""
    service = service_of(request)
    body = await read_body(request, CompletionRequest)
    service.adapter_of(body.model)  # raises for another model, before any other work
    jobs = await service.prepare(_jobs, body)
    choices = [_Choice(service.model, body, job) for job in jobs]
    answers = service.answers(jobs, streamed=bool(body.stream))
    prompts = jobs[:: body.n or 1]
    usage = Usage(sum(len(job.prompt) for job in prompts))
    if body.stream:
        events = as_events(_chunks(service, body, answers, choices, usage))
        return EventStream(service, answers, events)
    try:
        await unless_gone(request, _finish(answers, choices, usage))
    finally:
        answers.close()
    envelope = head("text_completion", "cmpl", body.model or service.name)
    found = [choice.report(index) for index, choice in enumerate(choices)]
    return json_response(envelope | {"choices": found, "usage": usage.report()})


def _jobs(service: Service, body: CompletionRequest) -> list[Job]:
    """`n` jobs for each prompt, in the order of the prompts."""
    prompts = _prompts(service.model, body.prompt)
    several = len(prompts) > 1
    service.check_choices(len(prompts) * (body.n or 1), "prompt" if several else "n")
    max_tokens = requested_max_tokens(service.model, body)
    max_tokens = _DEFAULT_TOKENS if max_tokens is None else max_tokens
    if max_tokens == 0 and not body.echo:
        raise invalid("max_tokens", "it is 0 without echo, so there would be no output.")
    logprobs = 0 if body.logprobs is None else max(1, body.logprobs)
    params = sampling_params(
        service.model,
        body,
        max_tokens=max(max_tokens, body.min_tokens or 0, 1),
        logprobs=logprobs,
    )
    room = tokens_left(service.model, max(prompts, key=len, default=[]), params[0])
    constraint = _constraint(service.model, body, room)
    params = [replace(one, constraint=constraint) for one in params]
    scored = body.logprobs if body.echo and body.logprobs is not None else None
    adapter = service.adapter_of(body.model)
    return [
        Job(
            prompt,
            one,
            None if scored is None else max(1, scored),
            answer=max_tokens > 0,
            adapter=adapter,
        )
        for prompt in prompts
        for one in params
    ]


def _constraint(model: Model, body: CompletionRequest, room: int) -> Constraint | None:
    output_format = requested_format(body)
    if output_format is None:
        return None
    check_ignore_eos(body, output_format.path)
    return make_constraint(model, output_format, room)


def _prompts(model: Model, prompt: str | Sequence[int | str | list[int]]) -> list[list[int]]:
    """Ids of each prompt: a text, one list of ids, or a list of texts or of lists of ids."""
    if isinstance(prompt, str):
        return [model.encode(prompt)]
    ids = [part for part in prompt if isinstance(part, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids:
        raise invalid("prompt", "it mixes ids with texts or lists: give one kind.")
    return [model.encode(part) for part in prompt if not isinstance(part, int)]


async def _finish(answers: Answers, choices: Sequence[_Choice], usage: Usage) -> None:
    async for index, event in answers:
        if isinstance(event, Scored):
            choices[index].add_prompt(event.logprobs)
        elif isinstance(event, Segment):
            usage.add(index, event)
            choices[index].add(event)


async def _chunks(
    service: Service,
    body: CompletionRequest,
    answers: Answers,
    choices: Sequence[_Choice],
    usage: Usage,
) -> AsyncIterator[object]:
    common = head("text_completion", "cmpl", body.model or service.name)
    options = body.stream_options or StreamOptions()
    if options.include_usage:
        common["usage"] = None
    async for index, event in answers:
        choice = choices[index]
        if isinstance(event, Scored):
            choice.add_prompt(event.logprobs)
        elif isinstance(event, Segment):
            usage.add(index, event)
            choice.add(event)
            if options.continuous_usage_stats:
                common["usage"] = usage.report()
        if new := choice.take(index):
            yield common | {"choices": [new]}
    if options.include_usage:
        yield common | {"choices": [], "usage": usage.report()}


class _Choice:
    """One choice of the response, built up event by event."""

    def __init__(self, model: Model, body: CompletionRequest, job: Job) -> None:
        self._tokenizer, self._body, self._prompt = model.tokenizer, body, job.prompt
        self._text = model.tokenizer.decode(job.prompt) if body.echo else ""
        rules = job.params.constraint
        newline = rules.newline if rules else model.manifest.prompt.newline
        self._offsets = Offsets(model.tokenizer, newline, start=len(self._text))
        self._answer = job.answer
        self._reason: str | None = None
        self._logprobs: dict[str, list[Any]] = _empty()

    def add_prompt(self, logprobs: Sequence[Logprob | None]) -> None:
        """Add the prompt's own log-probabilities, if requested."""
        offsets = Offsets(self._tokenizer)
        for token, logprob in zip(self._prompt, logprobs, strict=False):
            self._add_token(token, logprob, offsets)
        if not self._answer:
            self._reason = "length"

    def add(self, segment: Segment) -> None:
        """Add a token of the answer; the end token has logprobs but no text."""
        self._text += segment.text
        self._reason = segment.finish_reason
        if segment.logprob is not None:
            self._add_token(segment.id, segment.logprob, self._offsets)

    def _add_token(self, token: int, logprob: Logprob | None, offsets: Offsets) -> None:
        lists = self._logprobs
        lists["tokens"].append(self._spell(token))
        lists["token_logprobs"].append(logprob.drawn if logprob else None)
        lists["top_logprobs"].append(self._top(logprob) if logprob else None)
        lists["text_offset"].append(offsets.next(token))

    def _top(self, logprob: Logprob) -> dict[str, float]:
        """The top log-probabilities by spelling, the highest of those with the same spelling."""
        top: dict[str, float] = {}
        for token, value in list(logprob.top.items())[: self._body.logprobs]:
            top.setdefault(self._spell(token), value)
        return top

    def _spell(self, token: int) -> str:
        return self._tokenizer.piece(token).decode("utf-8", "replace")

    def report(self, index: int) -> dict[str, Any]:
        """The choice object with everything not yet taken."""
        return {
            "index": index,
            "text": self._text,
            "logprobs": None if self._body.logprobs is None else self._logprobs,
            "finish_reason": self._reason,
        }

    def take(self, index: int) -> dict[str, Any] | None:
        """The choice object with what is new since the last call; None if nothing is."""
        new = self.report(index)
        if not (self._text or self._reason or self._logprobs["tokens"]):
            return None
        self._text, self._logprobs = "", _empty()
        return new


def _empty() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
