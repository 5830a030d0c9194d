"""JSON that follows a schema: generated leaf by leaf if the schema is simple, else by a grammar.

Both response formats and function calls use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from issun.runtime.constraint.matching import Constraint
from issun.runtime.decoding.generate import Segment
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import ParameterError
from issun.runtime.filling.fill import CompiledSchema, SchemaFiller, compile_schema
from issun.runtime.model import Model
from issun.server.answers import Job
from issun.server.body import invalid
from issun.server.stepwise import Question


@dataclass(frozen=True, slots=True)
class ReadySchema:
    """A compiled schema: a form to fill in, or else a grammar."""

    form: CompiledSchema | None
    grammar: Constraint | None


def ready_schema(
    model: Model, schema: dict[str, Any], path: str, *, room: int, whole: bool = False
) -> ReadySchema:
    """Compile a schema for answers of `room` tokens; raises ApiError with its path in the body.

    May take seconds. A `whole` answer, which continues a text of the client or has a minimum
    length, needs the grammar.
    """
    try:
        with model.preparation.effort() as effort:
            if not whole:
                form = compile_schema(model, schema, max_tokens=room, effort=effort)
                if form:
                    return ReadySchema(form, None)
            grammar = model.constraints.json_schema(schema, max_tokens=room, effort=effort)
            return ReadySchema(None, grammar)
    except ParameterError as error:
        raise invalid(path, "{reason}", reason=error) from error


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
        """The whole answer, if the schema allows only one."""
        if self._filling and not self._filling.pending:
            yield self._filling.fixed_segment()

    def job(self) -> Job | None:
        """The next job; None at the end."""
        if self._filling:
            return (
                self._question.job(*self._filling.pending[::-1]) if self._filling.pending else None
            )
        whole, self._whole = self._whole, None
        return self._question.job(whole) if whole else None

    def add(self, segment: Segment) -> Iterator[object]:
        """The events for a segment of the current job."""
        yield self._filling.add(segment) if self._filling else segment
