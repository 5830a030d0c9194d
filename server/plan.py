"""Validates a chat request and prepares its jobs, before anything is generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from issun.runtime.decoding.sampling import SamplingParams
from issun.server.answers import Events, Job
from issun.server.body import invalid, unsupported
from issun.server.calls import CallSteps, ready_calls
from issun.server.formats import Format, requested_format
from issun.server.messages import Dialogue, parse_dialogue
from issun.server.sampling import (
    check_ignore_eos,
    make_constraint,
    requested_max_tokens,
    sampling_params,
)
from issun.server.service import Service
from issun.server.stepwise import Question, StepAnswers, Steps
from issun.server.structured import JsonSteps, ready_schema
from issun.server.tools import Calling, required_calls
from issun.server.types import ChatRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """The first job of each answer, and `steps` for answers that take several jobs."""

    params: SamplingParams  # of the first answer
    dropped_turns: int
    jobs: Sequence[Job | None]
    steps: Sequence[Steps] = ()

    def start(self, service: Service, *, streamed: bool) -> Events:
        """Start the answers; raises what `Service.answers` raises."""
        if self.steps:
            return StepAnswers(service, self.steps, self.jobs, streamed=streamed)
        return service.answers([job for job in self.jobs if job], streamed=streamed)


def make_plan(service: Service, body: ChatRequest) -> Plan:
    """Validate a request and prepare its jobs; raises ApiError.

    Compiling a grammar may take seconds.
    """
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "it needs logprobs to be true.")
    calling, output_format = required_calls(body), requested_format(body)
    _check_format(body, calling, output_format)
    dialogue = parse_dialogue(body.messages)
    _check_continued(body, dialogue.beginning)
    params, adapter = _params(service, body), service.adapter_of(body.model)
    if calling:
        question = Question(service, _without_beginning(dialogue), adapter)
        calls = ready_calls(service.model, calling, room=question.room(params[0]))
        return _stepwise(question, params, [CallSteps(question, calls, one) for one in params])
    question = Question(service, dialogue, adapter)
    if output_format is None:
        jobs = [question.job(one) for one in params]
        return Plan(params[0], question.dropped_turns, jobs)
    room = question.room(params[0])
    if output_format.kind == "schema":
        whole = bool(dialogue.beginning or params[0].min_new_tokens)
        json = ready_schema(
            service.model, output_format.value, output_format.path, room=room, whole=whole
        )
        return _stepwise(question, params, [JsonSteps(question, json, one) for one in params])
    constraint = make_constraint(service.model, output_format, room)
    jobs = [
        replace(question.job(one), params=replace(one, constraint=constraint)) for one in params
    ]
    return Plan(params[0], question.dropped_turns, jobs)


def _stepwise(question: Question, params: Sequence[SamplingParams], steps: Sequence[Steps]) -> Plan:
    jobs = [one.job() for one in steps]
    return Plan(params[0], question.dropped_turns, jobs, steps)


def _without_beginning(dialogue: Dialogue) -> Dialogue:
    """The dialogue with `beginning` moved into the message, since a call cannot continue a text."""
    message = "\n".join(filter(None, (dialogue.message, dialogue.beginning)))
    return dialogue._replace(message=message, beginning="")


def _params(service: Service, body: ChatRequest) -> list[SamplingParams]:
    max_tokens = requested_max_tokens(service.model, body)
    if max_tokens == 0:
        raise invalid("max_tokens", "it is 0: it must be 1 or more, or -1 for as many as fit.")
    max_tokens = max_tokens or service.model.decoder.n_positions
    service.check_choices(body.n or 1)
    return sampling_params(
        service.model,
        body,
        max_tokens=max(max_tokens, body.min_tokens or 0),
        logprobs=max(1, body.top_logprobs or 0) if body.logprobs else 0,
    )


def _check_format(body: ChatRequest, calling: Calling | None, output_format: Format | None) -> None:
    """Raise ApiError for a request for a call whose text would also have to follow a format."""
    if calling and output_format and output_format.kind != "schema":
        raise invalid(
            output_format.path, "give this or a tool_choice that demands a call, not both."
        )
    if calling:
        check_ignore_eos(body, "function_call" if calling.legacy else "tool_choice")
    elif output_format:
        check_ignore_eos(body, output_format.path)


def _check_continued(body: ChatRequest, beginning: str) -> None:
    """Raise ApiError where a request contradicts how the last message is treated.

    A last message of the assistant is always continued, any other never.
    """
    continues = bool(beginning)
    if body.continue_final_message not in (None, continues):
        path = "continue_final_message"
    elif body.add_generation_prompt not in (None, not continues):
        path = "add_generation_prompt"
    else:
        return
    raise unsupported(
        path, "a last message is continued if and only if its role is assistant. Leave it out."
    )
