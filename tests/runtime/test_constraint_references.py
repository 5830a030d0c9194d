"""References of a schema: to any place within it, without infinite cycles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from issun.runtime import Model, ParameterError
from tests.runtime.wandering import wander

pytest.importorskip("llguidance")
TREE = {
    "type": "object",
    "properties": {
        "木": {
            "type": "object",
            "properties": {"左": {"anyOf": [{"enum": ["葉", "枝"]}, {"type": "null"}]}},
            "required": ["左"],
        }
    },
    "required": ["木"],
}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.load(threads=1) as found:
        yield found


def answers(model: Model, schema: dict[str, Any], count: int = 8) -> list[Any]:
    constraint = model.constraints.json_schema(schema)
    texts = [wander(model.tokenizer, constraint, seed).text for seed in range(count)]
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize(
    ("reference", "around"),
    [
        ("#/$defs/色", {"$defs": {"色": {"const": 7}}}),
        ("#/$defs/%E8%89%B2", {"$defs": {"色": {"const": 7}}}),
        ("#/definitions/a~1b~0c", {"definitions": {"a/b~c": {"const": 7}}}),
        (
            "#/$defs/a%20b/properties/x~1y",
            {"$defs": {"a b": {"properties": {"x/y": {"const": 7}}}}},
        ),
        ("#/$defs/list/1", {"$defs": {"list": [{"const": 1}, {"const": 7}]}}),
        ("#seven", {"$defs": {"n": {"$anchor": "seven", "const": 7}}}),
        ("#seven", {"definitions": {"n": {"$id": "#seven", "const": 7}}}),
        (
            "seven.json",
            {"$id": "https://example.com/all", "$defs": {"n": {"$id": "seven.json", "const": 7}}},
        ),
        (
            "seven.json#/$defs/in",
            {"$defs": {"n": {"$id": "seven.json", "$defs": {"in": {"const": 7}}}}},
        ),
        ("#/$defs/first", {"$defs": {"first": {"$ref": "#/$defs/second"}, "second": {"const": 7}}}),
        ("#/components/schemas/N", {"components": {"schemas": {"N": {"const": 7}}}}),
    ],
)
def test_references(model: Model, reference: str, around: dict[str, Any]) -> None:
    assert answers(model, {"$ref": reference} | around, 2) == [7, 7]


def test_a_reference_into_another_subschema(model: Model) -> None:
    right = {"$ref": "#/properties/木/properties/左/anyOf/0"}
    tree = json.loads(json.dumps(TREE))
    tree["properties"]["右"] = right
    tree["required"].append("右")
    found = answers(model, tree)
    assert {answer["右"] for answer in found} <= {"葉", "枝"}
    assert {answer["木"]["左"] for answer in found} <= {"葉", "枝", None}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"値": {"type": "integer"}, "次": {"$ref": "#"}}, "required": ["値"]},
        {"type": "array", "items": {"$ref": "#"}},
        {
            "$ref": "#/$defs/式",
            "$defs": {
                "式": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/和"}]},
                "和": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/式"},
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        },
        {
            "allOf": [{"$ref": "#/$defs/名"}],
            "properties": {"子": {"type": "array", "items": {"$ref": "#"}}},
            "$defs": {"名": {"properties": {"名": {"enum": ["㈱", "赤"]}}, "required": ["名"]}},
        },
    ],
)
def test_values_of_a_recursive_schema_end(model: Model, schema: dict[str, Any]) -> None:
    found = answers(model, schema, 24)
    for answer in found:
        Draft202012Validator(schema).validate(answer)
    assert any(isinstance(a, list | dict) and a for a in found)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"$ref": "#"}, "# is a circular reference."),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
            },
            "#/$defs/a is a circular reference.",
        ),
        ({"anyOf": [{"type": "string"}, {"$ref": "#"}]}, "# is a circular reference."),
        (
            {"properties": {"名": {"$ref": "#"}}, "required": ["名"]},
            "#/properties/名 requires an infinitely nested value.",
        ),
        (
            {
                "properties": {"a": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
                "required": ["a"],
            },
            "#/properties/a requires an infinitely nested value.",
        ),
    ],
)
def test_an_infinite_cycle_is_refused(model: Model, schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        model.constraints.json_schema(schema)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("#/$defs/none", "#/properties/名"),
        ("#none", "#/properties/名"),
        ("#/properties/-1", "#/properties/名"),
        ("https://example.com/schema.json", "#/properties/名"),
        ("file:///etc/passwd", "#/properties/名"),
        (7, "#/properties/名"),
    ],
)
def test_a_reference_that_is_not_within_the_schema_is_refused(
    model: Model, reference: object, place: str
) -> None:
    schema = {"properties": {"名": {"$ref": reference}}, "$defs": {"秘密": {"const": "x"}}}
    with pytest.raises(ParameterError) as caught:
        model.constraints.json_schema(schema)
    expected = f"{place} refers to {reference!r}, which is not in the schema."
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            {"properties": {"a": {"type": "strin"}}},
            "#/properties/a/type is 'strin': the types are ",
        ),
        ({"items": {"minimum": "3"}}, "#/items/minimum is '3': it must be a number."),
        ({"anyOf": [{"enum": []}]}, "#/anyOf/0/enum is []: it must be a list that is not empty."),
        ({"properties": {"a": 3}}, "#/properties/a is 3: a schema is an object, true or false."),
        ({"items": {"not": {"type": "null"}}}, "#/items/not is not supported."),
        (
            {"properties": {"a": {"uniqueItems": True}}},
            "#/properties/a/uniqueItems is not supported",
        ),
        (
            {"properties": {"a": {"pattern": "(x"}}},
            "The constraint cannot be used: #/properties/a/pattern: ",
        ),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf: a value could match two "),
        ({"properties": {"a": False}, "required": ["a"]}, "#: no value satisfies the schema."),
        (
            {"properties": {"a": {"minLength": 3, "maxLength": 2}}, "required": ["a"]},
            "#/properties/a: no value ",
        ),
    ],
)
def test_errors_name_the_place_and_nothing_of_the_grammar(
    model: Model, schema: dict[str, Any], message: str
) -> None:
    schema = schema | {"description": "ひみつ"}
    with pytest.raises(ParameterError) as caught:
        model.constraints.json_schema(schema)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not any(
        word in str(caught.value) for word in ("ひみつ", "%json", "llguidance", "start:")
    )


def test_keywords_without_effect_are_accepted(model: Model) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "題",
        "properties": {
            "a": {
                "const": 7,
                "default": 7,
                "examples": [7],
                "deprecated": True,
                "x-order": 1,
                "uniqueItems": False,
                "format": "int32",
                "nullable": False,
                "discriminator": {"propertyName": "a"},
            }
        },
        "required": ["a"],
        "unevaluatedProperties": False,
    }
    assert answers(model, schema, 2) == [{"a": 7}, {"a": 7}]
