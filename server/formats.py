"""The form that a request wants its answer to have, from whichever field of a dialect says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from issun.server.body import invalid, refused
from issun.server.types import ResponseFormat, Sampling, StructuredOutputs

# What a schema may begin with, where it stands without a name around it.
_KEYWORDS = frozenset(
    {
        *("type", "properties", "required", "items", "prefixItems", "enum", "const", "pattern"),
        *("$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "additionalProperties"),
    }
)
_AROUND = ("name", "description", "strict", "schema")


class Format(NamedTuple):
    """A schema, a regular expression or a list of texts, and its path in the body."""

    kind: Literal["schema", "regex", "choices"]
    value: Any
    place: str


def wanted_format(request: Sampling) -> Format | None:
    """The one form that is asked for, None for free text; raises ApiError for several."""
    found = list(_formats(request))
    for other in found[1:]:
        if other[:2] != found[0][:2]:
            raise invalid(other.place, "give this or {first}, not both.", first=found[0].place)
    return found[0] if found else None


def _formats(request: Sampling) -> Iterator[Format]:
    for place in ("choices", "guided_choice"):
        if texts := getattr(request, place):
            yield Format("choices", texts, place)
    for place in ("regex", "guided_regex"):
        if pattern := getattr(request, place):
            yield Format("regex", pattern, place)
    for place in ("guided_json", "response_schema", "json_schema"):
        if schema := getattr(request, place):
            yield _schema(schema, place)
    if request.structured_outputs:
        yield from _structured(request.structured_outputs)
    if request.response_format and (found := _response_format(request.response_format)):
        yield found


def _structured(asked: StructuredOutputs) -> Iterator[Format]:
    if asked.choice:
        yield Format("choices", asked.choice, "structured_outputs.choice")
    if asked.regex:
        yield Format("regex", asked.regex, "structured_outputs.regex")
    if asked.json:
        yield _schema(asked.json, "structured_outputs.json")
    elif asked.json_object:
        yield Format("schema", {"type": "object"}, "structured_outputs.json_object")


def _response_format(asked: ResponseFormat) -> Format | None:
    schemas = [
        _schema(value, f"response_format.{name}")
        for name in ("json_schema", "schema", "response_schema")
        if (value := getattr(asked, name)) is not None
    ]
    if asked.type == "text" and not schemas:
        return None
    if asked.type == "json_object" and not schemas:
        return Format("schema", {"type": "object"}, "response_format")
    if asked.type not in ("json_object", "json_schema"):
        raise refused(
            "response_format.type",
            "{kind!r} has no schema: it must be text, json_object or json_schema; a schema belongs "
            "in response_format.json_schema.schema, a regular expression in regex.",
            kind=asked.type[:50],
        )
    if not schemas:
        raise invalid("response_format.json_schema", "it is missing: put the schema there.")
    return schemas[0]


def _schema(given: Any, place: str) -> Format:
    """A schema, alone or with a name around it; as JSON text where a client sends that."""
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise invalid(place, "it must be a JSON schema: {reason}", reason=error) from error
    inner = given.get("schema")
    if isinstance(inner, dict) and _KEYWORDS.isdisjoint(given):
        for name in given.keys() - set(_AROUND):
            raise refused(f"{place}.{name}", "is not supported. Leave it out.")
        return Format("schema", inner, f"{place}.schema")
    if not given.keys() & _KEYWORDS:
        raise invalid(f"{place}.schema", "it is missing: put the schema there.")
    return Format("schema", given, place)
