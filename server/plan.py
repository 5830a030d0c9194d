"""What a request for an answer in a conversation comes to: all is checked, nothing has begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from issun.runtime.sampling import SamplingParams
from issun.server.answers import Events, Job
from issun.server.body import invalid, refused
from issun.server.calls import CallSteps, ready_calls
from issun.server.formats import Format, wanted_format
from issun.server.messages import Dialogue, dialogue_of
from issun.server.sampling import check_ends, make_constraint, most_tokens, sampling_params
from issun.server.service import Service
from issun.server.stepwise import Question, StepAnswers, Steps
from issun.server.structured import JsonSteps, ready_schema
from issun.server.tools import Calling, calling_of
from issun.server.types import ChatRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """The first job of each answer, and the `steps` of those that take several."""

    params: SamplingParams  # of the first answer
    dropped_turns: int
    jobs: Sequence[Job | None]
    steps: Sequence[Steps] = ()

    def start(self, service: Service) -> Events:
        """Begin the answers; raises as `Service.answers` does."""
        if self.steps:
            return StepAnswers(service, self.steps, self.jobs)
        return service.answers([job for job in self.jobs if job])


def plan_of(service: Service, asked: ChatRequest) -> Plan:
    """Check a request and prepare for it; raises ApiError. May take seconds, for a grammar."""
    if asked.top_logprobs and not asked.logprobs:
        raise invalid("top_logprobs", "it needs logprobs to be true.")
    calling, wanted = calling_of(asked), wanted_format(asked)
    _check_form(asked, calling, wanted)
    dialogue = dialogue_of(asked.messages)
    _check_continued(asked, dialogue.beginning)
    params = _params(service, asked)
    if calling:
        question = Question(service, _without_beginning(dialogue))
        calls = ready_calls(service.model, calling, room=question.room(params[0]))
        return _stepwise(question, params, [CallSteps(question, calls, some) for some in params])
    question = Question(service, dialogue)
    if wanted is None:
        jobs = [question.job(some) for some in params]
        return Plan(params[0], question.dropped_turns, jobs)
    room = question.room(params[0])
    if wanted.kind == "schema":
        whole = bool(dialogue.beginning or params[0].min_new_tokens)
        json = ready_schema(service.model, wanted.value, wanted.place, room=room, whole=whole)
        return _stepwise(question, params, [JsonSteps(question, json, some) for some in params])
    constraint = make_constraint(service.model, wanted, room)
    jobs = [
        replace(question.job(some), params=replace(some, constraint=constraint)) for some in params
    ]
    return Plan(params[0], question.dropped_turns, jobs)


def _stepwise(question: Question, params: Sequence[SamplingParams], steps: Sequence[Steps]) -> Plan:
    jobs = [one.job() for one in steps]
    return Plan(params[0], question.dropped_turns, jobs, steps)


def _without_beginning(dialogue: Dialogue) -> Dialogue:
    """The same, for an answer that is no text and so cannot continue one."""
    message = "\n".join(filter(None, (dialogue.message, dialogue.beginning)))
    return dialogue._replace(message=message, beginning="")


def _params(service: Service, asked: ChatRequest) -> list[SamplingParams]:
    most = most_tokens(service.model, asked)
    if most == 0:
        raise invalid("max_tokens", "it is 0: it must be 1 or more, or -1 for as many as fit.")
    most = most or service.model.decoder.n_positions
    service.check_choices(asked.n or 1)
    return sampling_params(
        service.model,
        asked,
        max_tokens=max(most, asked.min_tokens or 0),
        logprobs=max(1, asked.top_logprobs or 0) if asked.logprobs else 0,
    )


def _check_form(asked: ChatRequest, calling: Calling | None, wanted: Format | None) -> None:
    """Raise ApiError for an answer that must be two things; a call has no text to be formed."""
    if calling and wanted and wanted.kind != "schema":
        raise invalid(wanted.place, "give this or a tool_choice that demands a call, not both.")
    if calling:
        check_ends(asked, "function_call" if calling.legacy else "tool_choice")
    elif wanted:
        check_ends(asked, wanted.place)


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
