"""Function calls: the model first chooses a function, then writes its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from issun.runtime.constraint.matching import Constraint
from issun.runtime.decoding.generate import Segment, Timings
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.model import Model
from issun.server.answers import Job
from issun.server.stepwise import Question
from issun.server.structured import JsonSteps, ReadySchema, ready_schema
from issun.server.tools import Calling, Function

_QUESTION = "次の中から、使う機能を一つ選んでください。"
_LONGEST = 60  # maximum length of a description in the prompt
_NAME_TOKENS = 100  # reserved for the name of the function


@dataclass(frozen=True, slots=True)
class Choice:
    """How the model chooses a function: the question, and the possible answers."""

    line: str
    texts: list[str]
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class ReadyCalls:
    """Functions with their compiled schemas, and the choice if there are several."""

    calling: Calling
    schemas: list[ReadySchema]
    choice: Choice | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The event that a function has been chosen, with the timings; its arguments follow."""

    function: Function
    calling: Calling
    timings: Timings


def ready_calls(model: Model, calling: Calling, *, room: int) -> ReadyCalls:
    """Compile the schemas of all functions for answers of at most `room` tokens.

    Raises ApiError with the path of an invalid schema.
    """
    schemas = [ready_schema(model, f.parameters, f.path, room=room) for f in calling.functions]
    choice = _choice(model, calling.functions) if len(schemas) > 1 else None
    return ReadyCalls(calling, schemas, choice)


def _choice(model: Model, functions: Sequence[Function]) -> Choice:
    """A choice by name, or by number if the vocabulary cannot spell one of the names."""
    texts = [function.name for function in functions]
    try:
        constraint = model.constraints.choices(texts, max_tokens=_NAME_TOKENS)
    except ParameterError:
        texts = [str(number) for number in range(1, len(functions) + 1)]
        constraint = model.constraints.choices(texts, max_tokens=_NAME_TOKENS)
    lines = [
        f"{text}: {_summary(function)}" for text, function in zip(texts, functions, strict=True)
    ]
    return Choice("\n".join([_QUESTION, *lines]), texts, constraint)


def _summary(function: Function) -> str:
    """The beginning of a description: several long ones would not fit into a small context."""
    return " ".join(function.description.split())[:_LONGEST] or function.name


class CallSteps:
    """The steps of one call: `Chosen`, then the segments of the arguments."""

    def __init__(self, question: Question, ready: ReadyCalls, params: SamplingParams) -> None:
        self._question, self._ready, self._params = question, ready, params
        self._choice_text = ""
        self._arguments: JsonSteps | None = None  # None until the function is chosen

    def start(self) -> Iterator[object]:
        """The events of a call that needs no choice, including those of constant arguments."""
        if self._ready.choice is None:
            yield from self._call(0, Timings())

    def job(self) -> Job | None:
        """The next job; None at the end."""
        choice = self._ready.choice
        if self._arguments or choice is None:
            arguments = self._arguments or self._arguments_of(0)
            return arguments.job()
        params = _choosing(self._params, choice)
        try:
            return self._question.job(params, choice.line)
        except ContextError:  # too many functions to list: choose by the message alone
            return self._question.job(params)

    def add(self, segment: Segment) -> Iterator[object]:
        """The events for a segment of the current job."""
        if self._arguments:
            yield from self._arguments.add(segment)
            return
        self._choice_text += segment.text
        if segment.finish_reason and self._ready.choice:
            yield from self._call(
                _chosen_index(self._choice_text, self._ready.choice), segment.timings
            )

    def _call(self, index: int, timings: Timings) -> Iterator[object]:
        calling = self._ready.calling
        yield Chosen(calling.functions[index], calling, timings)
        yield from self._arguments_of(index).start()

    def _arguments_of(self, index: int) -> JsonSteps:
        if self._arguments is None:
            self._arguments = JsonSteps(self._question, self._ready.schemas[index], self._params)
        return self._arguments


def _choosing(params: SamplingParams, choice: Choice) -> SamplingParams:
    """`params` for the name alone: what is about the arguments has no effect on it."""
    return replace(
        params,
        constraint=choice.constraint,
        max_new_tokens=_NAME_TOKENS,
        min_new_tokens=0,
        stop=(),
        logprobs=0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
    )


def _chosen_index(text: str, choice: Choice) -> int:
    """The index of the chosen text, of which only a prefix exists if the context ended."""
    prefix = text.strip()
    if prefix in choice.texts:
        return choice.texts.index(prefix)
    return next((n for n, full in enumerate(choice.texts) if full.startswith(prefix)), 0)
