"""The output format that a request asks for, in any of the fields that clients use for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from issun.server.body import invalid, unsupported
from issun.server.types import ResponseFormat, Sampling, StructuredOutputs

# A schema that is not wrapped in `{"name": …, "schema": …}` has at least one of these keys.
_KEYWORDS = frozenset(
    {
        *("type", "properties", "required", "items", "prefixItems", "enum", "const", "pattern"),
        *("$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "additionalProperties"),
    }
)
_AROUND = ("name", "description", "strict", "schema")


class Format(NamedTuple):
    """A schema, a regular expression or a list of choices, and its path in the body."""

    kind: Literal["schema", "regex", "choices"]
    value: Any
    path: str


def requested_format(request: Sampling) -> Format | None:
    """The requested format, None for free text; raises ApiError for two different ones."""
    found = list(_formats(request))
    for other in found[1:]:
        if other[:2] != found[0][:2]:
            raise invalid(other.path, "give this or {first}, not both.", first=found[0].path)
    return found[0] if found else None


def _formats(request: Sampling) -> Iterator[Format]:
    for path in ("choices", "guided_choice"):
        if texts := getattr(request, path):
            yield Format("choices", texts, path)
    for path in ("regex", "guided_regex"):
        if pattern := getattr(request, path):
            yield Format("regex", pattern, path)
    for path in ("guided_json", "response_schema", "json_schema"):
        if schema := getattr(request, path):
            yield _schema(schema, path)
    if request.structured_outputs:
        yield from _structured(request.structured_outputs)
    if request.response_format and (found := _response_format(request.response_format)):
        yield found


def _structured(body: StructuredOutputs) -> Iterator[Format]:
    if body.choice:
        yield Format("choices", body.choice, "structured_outputs.choice")
    if body.regex:
        yield Format("regex", body.regex, "structured_outputs.regex")
    if body.json:
        yield _schema(body.json, "structured_outputs.json")
    elif body.json_object:
        yield Format("schema", {"type": "object"}, "structured_outputs.json_object")


def _response_format(body: ResponseFormat) -> Format | None:
    schemas = [
        _schema(value, f"response_format.{name}")
        for name in ("json_schema", "schema", "response_schema")
        if (value := getattr(body, name)) is not None
    ]
    if body.type == "text" and not schemas:
        return None
    if body.type == "json_object" and not schemas:
        return Format("schema", {"type": "object"}, "response_format")
    if body.type not in ("json_object", "json_schema"):
        raise unsupported(
            "response_format.type",
            "{kind!r} has no schema: it must be text, json_object or json_schema; a schema belongs "
            "in response_format.json_schema.schema, a regular expression in regex.",
            kind=body.type[:50],
        )
    if not schemas:
        raise invalid("response_format.json_schema", "the schema is missing: put it there.")
    return schemas[0]


def _schema(given: Any, path: str) -> Format:
    """A schema, with or without a wrapper that names it; some clients send it as JSON text."""
    if isinstance(given, str):
        try:
            given = msgspec.json.decode(given, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise invalid(path, "it must be a JSON schema: {reason}", reason=error) from error
    inner = given.get("schema")
    if isinstance(inner, dict) and _KEYWORDS.isdisjoint(given):
        for name in given.keys() - set(_AROUND):
            raise unsupported(f"{path}.{name}", "is not supported. Leave it out.")
        return Format("schema", inner, f"{path}.schema")
    if not given.keys() & _KEYWORDS:
        raise invalid(f"{path}.schema", "the schema is missing: put it there.")
    return Format("schema", given, path)
