"""Answers that are calls of functions: which one is decided first, then its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from issun.runtime.constraint import Constraint
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.generate import Segment, Timings
from issun.runtime.model import Model
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Job
from issun.server.stepwise import Question
from issun.server.structured import JsonSteps, ReadySchema, ready_schema
from issun.server.tools import Calling, Function

_ASKED = "次の中から、使う機能を一つ選んでください。"
_LONGEST = 60  # characters of a description in the prompt
_NAME_TOKENS = 100  # kept for the name that is chosen


@dataclass(frozen=True, slots=True)
class Choice:
    """How the model says which function it calls: what it is asked, and an answer for each."""

    line: str
    texts: list[str]
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class ReadyCalls:
    """Functions with their schemas, and how one of several is chosen."""

    calling: Calling
    schemas: list[ReadySchema]
    choice: Choice | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which function an answer calls, and what it took to say so; the arguments follow."""

    function: Function
    calling: Calling
    timings: Timings


def ready_calls(model: Model, calling: Calling, *, room: int) -> ReadyCalls:
    """Prepare for all schemas that an answer of `room` tokens may follow.

    Raises ApiError with the path of a bad one.
    """
    schemas = [ready_schema(model, f.parameters, f.place, room=room) for f in calling.functions]
    choice = _choice(model, calling.functions) if len(schemas) > 1 else None
    return ReadyCalls(calling, schemas, choice)


def _choice(model: Model, functions: Sequence[Function]) -> Choice:
    """By name, or by number where the vocabulary cannot spell a name."""
    texts = [function.name for function in functions]
    try:
        constraint = model.constraints.choices(texts, max_tokens=_NAME_TOKENS)
    except ParameterError:
        texts = [str(number) for number in range(1, len(functions) + 1)]
        constraint = model.constraints.choices(texts, max_tokens=_NAME_TOKENS)
    lines = [
        f"{text}: {_summary(function)}" for text, function in zip(texts, functions, strict=True)
    ]
    return Choice("\n".join([_ASKED, *lines]), texts, constraint)


def _summary(function: Function) -> str:
    """The beginning of a description: more of several would not fit into a small context."""
    return " ".join(function.description.split())[:_LONGEST] or function.name


class CallSteps:
    """One call: `Chosen`, then the segments of its arguments."""

    def __init__(self, question: Question, ready: ReadyCalls, params: SamplingParams) -> None:
        self._question, self._ready, self._params = question, ready, params
        self._said = ""
        self._arguments: JsonSteps | None = None  # None: the function is not chosen

    def start(self) -> Iterator[object]:
        """The function where there is one alone, and its arguments where there are none."""
        if self._ready.choice is None:
            yield from self._call(0, Timings())

    def job(self) -> Job | None:
        """What is asked next; None at the end."""
        choice = self._ready.choice
        if self._arguments or choice is None:
            arguments = self._arguments or self._arguments_of(0)
            return arguments.job()
        params = _choosing(self._params, choice)
        try:
            return self._question.job(params, choice.line)
        except ContextError:  # too many functions: what is asked decides alone
            return self._question.job(params)

    def add(self, segment: Segment) -> Iterator[object]:
        """Take a segment of the latest job; gives what the answer gets of it."""
        if self._arguments:
            yield from self._arguments.add(segment)
            return
        self._said += segment.text
        if segment.finish_reason and self._ready.choice:
            yield from self._call(_meant(self._said, self._ready.choice), segment.timings)

    def _call(self, place: int, timings: Timings) -> Iterator[object]:
        calling = self._ready.calling
        yield Chosen(calling.functions[place], calling, timings)
        yield from self._arguments_of(place).start()

    def _arguments_of(self, place: int) -> JsonSteps:
        if self._arguments is None:
            self._arguments = JsonSteps(self._question, self._ready.schemas[place], self._params)
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


def _meant(text: str, choice: Choice) -> int:
    """The place of what was said, or of what it is the beginning of, where the context ended."""
    texts, said = choice.texts, text.strip()
    if said in texts:
        return texts.index(said)
    return next((n for n, whole in enumerate(texts) if whole.startswith(said)), 0)
