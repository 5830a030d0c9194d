"""JSON by a schema: filled leaf by leaf where it has a skeleton, by its grammar elsewhere.

Whoever asks for it, a response format or a call, gets it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from issun.runtime.constraint import Constraint
from issun.runtime.errors import ParameterError
from issun.runtime.filling import CompiledSchema, SchemaFiller, compile_schema
from issun.runtime.generate import Segment
from issun.runtime.model import Model
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Job
from issun.server.body import invalid
from issun.server.stepwise import Question


@dataclass(frozen=True, slots=True)
class ReadySchema:
    """A schema that a model can follow: its form, or else its grammar."""

    form: CompiledSchema | None
    grammar: Constraint | None


def ready_schema(
    model: Model, schema: dict[str, Any], place: str, *, room: int, whole: bool = False
) -> ReadySchema:
    """Prepare for a schema; raises ApiError with its path in the body. May take seconds.

    The answers may have `room` tokens. A `whole` one, which a client has begun or which has a least
    length, is written by the grammar.
    """
    try:
        with model.effort() as effort:
            if not whole:
                form = compile_schema(model, schema, max_tokens=room, effort=effort)
                if form:
                    return ReadySchema(form, None)
            grammar = model.constraints.json_schema(schema, max_tokens=room, effort=effort)
            return ReadySchema(None, grammar)
    except ParameterError as error:
        raise invalid(place, "{reason}", reason=error) from error


class JsonSteps:
    """One answer to `question` whose text is JSON that follows a schema.

    A segment has a token that the model drew, the JSON that is certain by then, and the count of
    all tokens read and drawn so far.
    """

    def __init__(self, question: Question, ready: ReadySchema, params: SamplingParams) -> None:
        self._question = question
        self._whole: SamplingParams | None = None
        self._filling: SchemaFiller | None = None
        if ready.form:
            self._filling = SchemaFiller(ready.form, question.dialogue.message, params)
        else:
            self._whole = replace(params, constraint=ready.grammar)

    def start(self) -> Iterator[object]:
        """The whole answer, where it needs no model."""
        if self._filling and not self._filling.pending:
            yield self._filling.fixed_segment()

    def job(self) -> Job | None:
        """What is asked next; None at the end."""
        if self._filling:
            return (
                self._question.job(*self._filling.pending[::-1]) if self._filling.pending else None
            )
        whole, self._whole = self._whole, None
        return self._question.job(whole) if whole else None

    def add(self, segment: Segment) -> Iterator[object]:
        """Take a segment of the latest job; gives what the answer gets of it."""
        yield self._filling.add(segment) if self._filling else segment
