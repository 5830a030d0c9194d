"""JSON by a schema: how an answer that must follow one is made, whoever asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from issun.runtime.constraint import Constraint
from issun.runtime.model import Model
from issun.runtime.sampling import SamplingParams
from issun.server.answers import Answers, Job
from issun.server.formats import Format
from issun.server.messages import Dialogue
from issun.server.sampling import make_constraint
from issun.server.service import Service


@dataclass(frozen=True, slots=True)
class Question:
    """What is answered: a conversation and its prompt, of which `continued` ids are answer."""

    dialogue: Dialogue
    ids: list[int]
    continued: int = 0


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A schema that the model can follow."""

    schema: dict[str, Any]
    constraint: Constraint


def compile_schema(model: Model, schema: dict[str, Any], place: str) -> JsonSchema:
    """Prepare for a schema; raises ApiError with its path in the body. May take seconds."""
    return JsonSchema(schema, make_constraint(model, Format("schema", schema, place)))


def json_answers(
    service: Service, question: Question, asked: Sequence[tuple[JsonSchema, SamplingParams]]
) -> Answers:
    """Start one answer to `question` for each schema; the text of each is JSON.

    Raises as `Service.answers` does.
    """
    jobs = [
        Job(
            question.ids,
            replace(params, constraint=json.constraint),
            continued=question.continued,
        )
        for json, params in asked
    ]
    return service.answers(jobs)
