"""What a request for an answer in a conversation comes to: all is checked, nothing has begun."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from issun.runtime.prompt import FittedPrompt
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Answering, Job
from issun.server.body import invalid, refused
from issun.server.calls import Calls, ReadyCalls, ready_calls
from issun.server.formats import Format, wanted_format
from issun.server.messages import Dialogue, dialogue_of
from issun.server.sampling import check_ends, make_constraint, most_tokens, sampling_params
from issun.server.service import Service
from issun.server.structured import JsonSchema, Question, compile_schema, json_answers
from issun.server.tools import Calling, calling_of
from issun.server.types import ChatRequest

_REMEMBERED = 1024  # conversations


@dataclass(frozen=True, slots=True)
class Plan:
    """A question with the parameters of each answer, and whether these are JSON or calls."""

    question: Question
    dropped_turns: int
    params: list[SamplingParams]
    json: JsonSchema | None = None
    calls: ReadyCalls | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts that are read."""
        choice = self.calls.choice if self.calls else None
        return len(self.question.ids) + (len(choice.ids) if choice else 0)

    def start(self, service: Service) -> Answering:
        """Begin the answers; raises as `Service.answers` does."""
        if self.calls:
            return Calls(service, self.question, self.calls, self.params)
        if self.json:
            return json_answers(service, self.question, [(self.json, p) for p in self.params])
        ids, continued = self.question.ids, self.question.continued
        return service.answers([Job(ids, p, continued=continued) for p in self.params])


def plan_of(service: Service, asked: ChatRequest) -> Plan:
    """Check a request and prepare for it; raises ApiError. May take seconds, for a grammar."""
    if asked.top_logprobs and not asked.logprobs:
        raise invalid("top_logprobs", "it needs logprobs to be true.")
    calling, wanted = calling_of(asked), wanted_format(asked)
    _check_form(asked, calling, wanted)
    most = most_tokens(service.model, asked)
    if most == 0:
        raise invalid("max_tokens", "it is 0: it must be 1 or more, or -1 for as many as fit.")
    most = most or service.model.decoder.n_positions
    plain = wanted is not None and wanted.kind != "schema" and not calling
    params = sampling_params(
        service.model,
        asked,
        max_tokens=max(most, asked.min_tokens or 0),
        logprobs=max(1, asked.top_logprobs or 0) if asked.logprobs else 0,
        constraint=make_constraint(service.model, wanted) if wanted and plain else None,
    )
    service.check_choices(len(params))
    dialogue = dialogue_of(asked.messages)
    _check_continued(asked, dialogue.beginning)
    fitted = fit(service, dialogue, most)
    question = Question(dialogue, fitted.ids, fitted.continued)
    if calling:
        ready = ready_calls(service.model, calling, dialogue)
        return Plan(question, fitted.dropped_turns, params, calls=ready)
    json = None
    if wanted and wanted.kind == "schema":
        json = compile_schema(service.model, wanted.value, wanted.place)
    return Plan(question, fitted.dropped_turns, params, json=json)


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
        beginning=dialogue.beginning,
    )
    service.dropped[key] = fitted.dropped_turns
    service.dropped.move_to_end(key)
    if len(service.dropped) > _REMEMBERED:
        service.dropped.popitem(last=False)
    return fitted
