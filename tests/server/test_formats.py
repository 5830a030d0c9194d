"""The form of an answer, wherever a client says it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from issun.server.body import parse
from issun.server.errors import ApiError
from issun.server.formats import requested_format
from issun.server.types import ChatRequest
from tests.server.conftest import Running

SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}
REF = {"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}
ANY = {"type": "object"}


def wanted(**fields: Any) -> tuple[Any, ...] | None:
    body = {"messages": [{"role": "user", "content": "x"}]} | fields
    return requested_format(parse(json.dumps(body).encode(), ChatRequest))


def named(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA} | more}


PLACE = "response_format.json_schema"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": named()}, ("schema", SCHEMA, f"{PLACE}.schema")),
        (
            {"response_format": named(strict=True, description="d")},
            ("schema", SCHEMA, f"{PLACE}.schema"),
        ),
        ({"response_format": named(schema={})}, ("schema", {}, f"{PLACE}.schema")),
        (
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
            ("schema", SCHEMA, PLACE),
        ),
        ({"response_format": {"type": "json_schema", "json_schema": REF}}, ("schema", REF, PLACE)),
        (
            {"response_format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
            ("schema", SCHEMA, "response_format.schema"),
        ),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            ("schema", SCHEMA, "response_format.schema"),
        ),
        (
            {"response_format": {"type": "json_object", "response_schema": SCHEMA}},
            ("schema", SCHEMA, "response_format.response_schema"),
        ),
        (
            {"response_format": {"type": "json_object", "json_schema": {"schema": SCHEMA}}},
            ("schema", SCHEMA, f"{PLACE}.schema"),
        ),
        ({"response_format": {"type": "json_object"}}, ("schema", ANY, "response_format")),
        ({"response_schema": SCHEMA}, ("schema", SCHEMA, "response_schema")),
        ({"json_schema": SCHEMA}, ("schema", SCHEMA, "json_schema")),
        ({"json_schema": {"schema": SCHEMA}}, ("schema", SCHEMA, "json_schema.schema")),
        ({"guided_json": SCHEMA}, ("schema", SCHEMA, "guided_json")),
        ({"guided_json": json.dumps(SCHEMA)}, ("schema", SCHEMA, "guided_json")),
        ({"structured_outputs": {"json": SCHEMA}}, ("schema", SCHEMA, "structured_outputs.json")),
        (
            {"structured_outputs": {"json_object": True}},
            ("schema", ANY, "structured_outputs.json_object"),
        ),
        ({"structured_outputs": {"regex": "a+"}}, ("regex", "a+", "structured_outputs.regex")),
        (
            {"structured_outputs": {"choice": ["a"], "disable_fallback": True}},
            ("choices", ["a"], "structured_outputs.choice"),
        ),
        ({"guided_regex": "a+", "guided_decoding_backend": "x"}, ("regex", "a+", "guided_regex")),
        ({"guided_choice": ["a", "b"]}, ("choices", ["a", "b"], "guided_choice")),
        ({"regex": "a+"}, ("regex", "a+", "regex")),
        ({"choices": ["a"]}, ("choices", ["a"], "choices")),
        # The same twice is one.
        ({"response_format": named(), "guided_json": SCHEMA}, ("schema", SCHEMA, "guided_json")),
        # Nothing.
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {}, "choices": [], "regex": "", "guided_json": None}, None),
        ({"structured_outputs": {}, "guided_grammar": None, "grammar": ""}, None),
    ],
)
def test_every_place_is_known(fields: dict[str, Any], expected: Any) -> None:
    found = wanted(**fields)
    assert (tuple(found) if found else None) == expected


@pytest.mark.parametrize(
    ("fields", "place", "part"),
    [
        ({"response_format": {"type": "json_schema"}}, PLACE, "the schema is missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            f"{PLACE}.schema",
            "the schema is missing",
        ),
        ({"response_format": named(x=1)}, f"{PLACE}.x", "not supported"),
        ({"response_format": {"type": "object"}}, "response_format.type", "json_schema.schema"),
        ({"response_format": {"type": "regex"}}, "response_format.type", "in regex"),
        (
            {"response_format": {"type": "text", "schema": SCHEMA}},
            "response_format.type",
            "'text' has no schema",
        ),
        ({"guided_json": "{"}, "guided_json", "must be a JSON schema"),
        ({"guided_json": "[]"}, "guided_json", "must be a JSON schema"),
        ({"choices": ["a"], "regex": "a"}, "regex", "give this or choices"),
        (
            {"response_format": named(), "guided_json": ANY},
            f"{PLACE}.schema",
            "give this or guided_json",
        ),
    ],
)
def test_what_is_no_form_is_told_where_it_belongs(
    fields: dict[str, Any], place: str, part: str
) -> None:
    with pytest.raises(ApiError) as caught:
        wanted(**fields)
    assert caught.value.param == place
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_choice": ["富士山"]},
        {"structured_outputs": {"regex": "富士山"}},
        {"response_format": {"type": "json_object", "schema": {"const": "富士山"}}},
    ],
)
def test_the_answer_has_the_form(server: Running, fields: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "川は?"}]} | fields
    found = server.post("/v1/chat/completions", body).json()
    assert found["choices"][0]["message"]["content"].strip('"') == "富士山"


def test_a_bad_form_is_refused_by_its_path(server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "川は?"}], "guided_regex": "("}
    found = server.post("/v1/chat/completions", body)
    assert found.status_code == 400
    assert found.json()["error"]["param"] == "guided_regex"
