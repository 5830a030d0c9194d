"""Answers that are calls of functions: which one is decided first, then its arguments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from issun.runtime.constraint import Constraint
from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.generate import Segment, Timings
from issun.runtime.model import Model
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Answers, Job
from issun.server.messages import Dialogue
from issun.server.service import Service
from issun.server.structured import JsonSchema, Question, compile_schema, json_answers
from issun.server.tools import Calling, Function

_ASKED = "次の中から、使う機能を一つ選んでください。"
_LONGEST = 60  # characters of a description in the prompt
_NAME_TOKENS = 100  # kept for the name that is chosen


@dataclass(frozen=True, slots=True)
class Choice:
    """How the model says which function it calls: a prompt, and an answer for each function."""

    ids: list[int]
    texts: list[str]
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class ReadyCalls:
    """Functions with their schemas (None: nothing to say), and how one of several is chosen."""

    calling: Calling
    schemas: list[JsonSchema | None]
    choice: Choice | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which function an answer calls; what follows are the arguments."""

    calling: Calling
    place: int  # among the functions
    new_tokens: int = 0  # that saying so took

    @property
    def function(self) -> Function:
        """The function that is called."""
        return self.calling.functions[self.place]


def ready_calls(model: Model, calling: Calling, dialogue: Dialogue) -> ReadyCalls:
    """Compile all schemas that an answer may follow; raises ApiError with the path of a bad one."""
    schemas = [
        None
        if function.takes_nothing
        else compile_schema(model, function.parameters, function.place)
        for function in calling.functions
    ]
    choice = _choice(model, calling.functions, dialogue) if len(schemas) > 1 else None
    return ReadyCalls(calling, schemas, choice)


def _choice(model: Model, functions: Sequence[Function], dialogue: Dialogue) -> Choice:
    """By name, or by number where the vocabulary cannot spell a name."""
    texts = [function.name for function in functions]
    try:
        constraint = model.constraints.choices(texts)
    except ParameterError:
        texts = [str(number) for number in range(1, len(functions) + 1)]
        constraint = model.constraints.choices(texts)
    lines = [
        f"{text}: {_summary(function)}" for text, function in zip(texts, functions, strict=True)
    ]
    message = "\n".join([dialogue.message, _ASKED, *lines])
    try:
        ids = _prompt(model, dialogue, message)
    except ContextError:  # too many functions: what is asked decides alone
        ids = _prompt(model, dialogue, dialogue.message)
    return Choice(ids, texts, constraint)


def _summary(function: Function) -> str:
    """The beginning of a description: the first lines of some are all that a prompt can hold."""
    return " ".join(function.description.split())[:_LONGEST] or function.name


def _prompt(model: Model, dialogue: Dialogue, message: str) -> list[int]:
    prompts = model.prompts
    role = prompts.system_lines(dialogue.system) if dialogue.system.strip() else []
    return prompts.chat(role, dialogue.turns, message, max_new_tokens=_NAME_TOKENS).ids


class Calls:
    """One call for each of `params`: iterating gives `Chosen`, then segments of the arguments.

    As with `Answers`, each comes with the place of the answer, and `close` must be called.
    """

    def __init__(
        self,
        service: Service,
        question: Question,
        ready: ReadyCalls,
        params: Sequence[SamplingParams],
    ) -> None:
        self._service, self._question, self._params = service, question, params
        self._ready = ready
        if ready.choice is None:
            self._answers = self._start([0] * len(params))
        else:
            jobs = [Job(ready.choice.ids, _choosing(some, ready.choice)) for some in params]
            self._answers = service.answers(jobs)

    async def __aiter__(self) -> AsyncIterator[tuple[int, object]]:
        """Events until all calls have ended; raises the error of the first that failed."""
        places = range(len(self._params))
        chosen, used = [0 for _ in places], [0 for _ in places]
        if choice := self._ready.choice:
            texts = ["" for _ in places]
            async for place, event in self._answers:
                if isinstance(event, Segment):
                    texts[place] += event.text
                    used[place] = event.timings.new_tokens
            chosen = [_meant(text, choice) for text in texts]
            self._answers = self._start(chosen)
        for place in places:
            yield place, Chosen(self._ready.calling, chosen[place], used[place])
            if self._ready.schemas[chosen[place]] is None:
                yield place, Segment(-1, "{}", "stop", Timings())
        asked = [place for place in places if self._ready.schemas[chosen[place]]]
        async for number, event in self._answers:
            yield asked[number], event

    def close(self) -> None:
        """Give up what has not ended."""
        self._answers.close()

    def _start(self, chosen: Sequence[int]) -> Answers:
        schemas = [self._ready.schemas[number] for number in chosen]
        asked = [(s, p) for s, p in zip(schemas, self._params, strict=True) if s is not None]
        return json_answers(self._service, self._question, asked)


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
