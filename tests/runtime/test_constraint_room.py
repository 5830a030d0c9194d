"""Answers end within their token budget, and complete ones follow the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from issun.runtime import Model, ParameterError, SamplingParams
from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.literals import Literals
from issun.runtime.constraint.references import Document
from issun.runtime.constraint.sizes import Sizes
from issun.runtime.constraint.strings import Strings
from tests.runtime.wandering import wander

pytest.importorskip("llguidance")
Schema = dict[str, Any]


@cache
def embedded() -> Model:
    return Model.load(threads=1)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    yield embedded()
    embedded().close()
    embedded.cache_clear()


def parsed(text: str) -> Any:
    """Parse JSON with exact numbers: 0.3 is a multiple of 0.1."""
    return json.loads(text, parse_float=Decimal)


def ended(model: Model, schema: Schema, room: int = 100, count: int = 8) -> list[Any]:
    """Generate worst-case answers to `schema`; each ends and follows it."""
    constraint = model.constraints.json_schema(schema, max_tokens=room)
    validator = Draft202012Validator(parsed(json.dumps(schema)))
    answers = []
    for seed in range(count):
        answer = wander(model.tokenizer, constraint, seed, room)
        assert answer.ended, (schema, answer.text)
        answers.append(parsed(answer.text))
        validator.validate(answers[-1])
    return answers


def test_the_embedded_model_s_integers_end(model: Model) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    constraint = model.constraints.json_schema(schema)
    prompt = model.prompt("1年は何日ですか?")
    params = [SamplingParams(seed=seed, constraint=constraint) for seed in range(20)]
    answers = model.generate_many([prompt] * 20, params)
    assert {answer.finish_reason for answer in answers} == {"stop"}
    assert all(constraint.accepts(answer.ids) for answer in answers)
    numbers = [json.loads(answer.text)["n"] for answer in answers]
    assert all(abs(number) < 10**15 for number in numbers)


@pytest.mark.parametrize(
    ("schema", "digits"),
    [
        ({"type": "integer"}, 15),
        ({"type": "number"}, 15),
        ({"type": "number", "minimum": 0, "maximum": 1}, 15),
        ({"type": "number", "exclusiveMinimum": -5}, 15),
        ({"type": "number", "multipleOf": 0.25}, 15),
        ({"type": "integer", "minimum": 10**15}, 16),
        ({"type": "integer", "maximum": -(10**15), "multipleOf": 8}, 16),
        ({"type": "integer", "maximum": 2**63 - 1}, 15),
    ],
)
def test_numbers_have_so_many_digits(model: Model, schema: Schema, digits: int) -> None:
    constraint = model.constraints.json_schema(schema)
    for seed in range(20):
        text = wander(model.tokenizer, constraint, seed).text
        assert len(re.sub(r"\D", "", text)) <= digits, text
        assert re.fullmatch(r"-?\d+(\.\d+)?", text)
    ended(model, schema)


def test_listed_properties_are_all_unless_it_is_stated(model: Model) -> None:
    listed = {"properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}}
    assert all(set(a) <= {"a", "b"} for a in ended(model, listed, count=20))
    both = {"allOf": [listed, {"properties": {"c": {"const": 1}}, "required": ["c", "d"]}]}
    assert all({"c", "d"} <= set(a) <= {"a", "b", "c", "d"} for a in ended(model, both))
    stated = listed | {"additionalProperties": {"const": 1}}
    more = [a for a in ended(model, stated, count=40) if not set(a) <= {"a", "b"}]
    assert more
    assert all(v == 1 for a in more for k, v in a.items() if k not in ("a", "b"))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "string"},
        {"type": "array"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        {"type": "string", "pattern": "^a+b*$"},
        {"type": "string", "format": "email"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "patternProperties": {"^x-": {"type": "string"}, "^y+z": {}}},
        {"type": "string", "minLength": 20, "maxLength": 10**6},
        {"type": "array", "items": {"type": "null"}, "minItems": 5, "maxItems": 10**6},
        {"properties": {k: {"type": "string"} for k in "abcdef"}, "required": ["a", "f"]},
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {"a": {}, "b": {}},
        },
        {"type": "object", "minProperties": 2, "properties": {"a": {}, "b": {}, "c": {}}},
        {"type": "array", "prefixItems": [{"type": "string", "pattern": "^a", "maxLength": 0}]},
        {"type": ["array", "null"], "prefixItems": [{"type": "integer"}, {"type": "string"}]},
    ],
)
@pytest.mark.parametrize("room", [40, 100, 500])
def test_unbounded_values_get_a_bound(model: Model, schema: Schema, room: int) -> None:
    ended(model, schema, room, count=4)


@pytest.mark.parametrize("pattern", [".*", "a+", "(は|い|!)*", "[0-9]+(,[0-9]+)*", r"x{3,}\n?"])
def test_an_unbounded_pattern_gets_a_bound(model: Model, pattern: str) -> None:
    for room in (5, 40, 100):
        constraint = model.constraints.regex(pattern, max_tokens=room)
        for seed in range(4):
            answer = wander(model.tokenizer, constraint, seed, room)
            assert answer.ended
            assert re.fullmatch(pattern, answer.text)


def test_similar_budgets_share_a_grammar(model: Model) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    grammars = {
        model.constraints.json_schema(schema, max_tokens=n).grammar for n in range(100, 1000)
    }
    assert len(grammars) < 10


def test_a_larger_budget_is_used(model: Model) -> None:
    schema = {"type": "string"}
    longest = [max(len(a) for a in ended(model, schema, room)) for room in (20, 100, 500)]
    assert longest[0] >= 10
    assert longest[1] >= 60
    assert longest[2] >= 250


@pytest.mark.parametrize(
    ("schema", "needs"),
    [
        ({"type": "array", "items": {"type": "integer"}, "minItems": 60}, 121),
        ({"type": "string", "minLength": 1000}, 252),
        ({"properties": {"a": {"const": "0" * 120}}, "required": ["a"]}, 128),
        (
            {
                "type": "array",
                "items": {"$ref": "#/$defs/x"},
                "minItems": 10,
                "$defs": {"x": {"const": "0123456789"}},
            },
            131,
        ),
        (
            {
                "properties": {str(n): {} for n in range(40)},
                "required": [str(n) for n in range(40)],
            },
            271,
        ),
    ],
)
def test_a_schema_whose_smallest_answer_does_not_fit_is_refused(
    model: Model, schema: Schema, needs: int
) -> None:
    with pytest.raises(ParameterError) as caught:
        model.constraints.json_schema(schema, max_tokens=100)
    found = re.fullmatch(
        r"schema needs at least ([\d,]+) tokens, but the answer is limited to 100\.",
        str(caught.value),
    )
    assert found
    assert abs(int(found[1].replace(",", "")) - needs) <= needs // 4
    model.constraints.json_schema(schema, max_tokens=1000)


def test_choices_and_patterns_that_do_not_fit_are_refused(model: Model) -> None:
    with pytest.raises(ParameterError, match=r"choices\[1\] needs at least 9 tokens"):
        model.constraints.choices(["はい", "012345678"], max_tokens=8)
    with pytest.raises(ParameterError, match="regex needs at least 90 tokens"):
        model.constraints.regex("[0-9]{90}", max_tokens=20)
    model.constraints.choices(["はい", "012345678"], max_tokens=9)
    model.constraints.regex("[0-9]{90}", max_tokens=90)


def test_accepts_only_complete_answers(model: Model) -> None:
    constraint = model.constraints.regex("[0-9]{2,9}")
    params = SamplingParams(max_new_tokens=3, seed=1, constraint=constraint)
    answer = model.generate(model.prompt("数字を言って"), params)
    assert answer.finish_reason == "length"
    assert constraint.accepts(answer.ids)
    assert not constraint.accepts(answer.ids[:1])
    assert not constraint.accepts(model.tokenizer.encode("富士山"))


def min_chars(model: Model, schema: Schema) -> float:
    """Return the characters that values need with the tightest bounds."""
    vocabulary = model.constraints.vocabulary
    alternatives = Alternatives(Document(schema))
    strings = Strings(vocabulary, model.constraints._compiler)
    return Sizes(alternatives, Literals(vocabulary), strings).min_chars(("#",))


NAMES = st.sampled_from(["a", "b", "名", "㈱", "x y"])
WORDS = st.sampled_from(["赤", "㈱山田", "はい！", "a", "", "a\nb", 'q"'])
NUMBERS = st.sampled_from([-1000, -3, -0.5, 0, 0.25, 1, 7, 99.5, 12345, 10**15])
PATTERNS = st.sampled_from(["^a", "[0-9]+", "^(赤|㈱)+$", "山$"])
VALUES = st.one_of(WORDS, st.integers(-5, 5), st.none(), st.lists(WORDS, max_size=2))


def some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    """Draw any of the keywords, always with those before the first optional one."""
    fixed = {k.rstrip("_"): v for k, v in keywords.items() if k.endswith("_")}
    free = {k: v for k, v in keywords.items() if not k.endswith("_")}
    return st.fixed_dictionaries(fixed, optional=free)


LEAVES = st.one_of(
    st.sampled_from([{}, True, {"type": "null"}, {"type": "boolean"}]),
    some(
        type_=st.just("integer"),
        minimum=NUMBERS,
        maximum=NUMBERS,
        multipleOf=st.sampled_from([1, 3, 0.5]),
    ),
    some(
        type_=st.just("number"),
        minimum=NUMBERS,
        exclusiveMaximum=NUMBERS,
        multipleOf=st.sampled_from([0.25, 0.1]),
    ),
    some(
        type_=st.just("string"),
        minLength=st.integers(0, 6),
        maxLength=st.integers(0, 40),
        pattern=PATTERNS,
    ),
    some(enum_=st.lists(VALUES, min_size=1, max_size=4)),
    some(const_=WORDS),
    st.sampled_from([{"$ref": "#"}, {"$ref": "#/$defs/%E8%89%B2"}]),
)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        some(
            type_=st.sampled_from(["object", ["object", "string", "null"]]),
            properties=st.dictionaries(NAMES, inner, max_size=4),
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=st.one_of(st.booleans(), inner),
            minProperties=st.integers(0, 1),
            maxProperties=st.integers(1, 4),
        ),
        some(
            type_=st.just("array"),
            items=inner,
            prefixItems=st.lists(inner, min_size=1, max_size=3),
            minItems=st.integers(0, 3),
            maxItems=st.integers(1, 30),
        ),
        some(anyOf_=st.lists(inner, min_size=1, max_size=3)),
        some(allOf_=st.lists(inner, min_size=1, max_size=2)),
        some(oneOf_=st.lists(inner, min_size=1, max_size=2)),
    )


SCHEMAS = (
    st.recursive(LEAVES, combined, max_leaves=10)
    .filter(lambda schema: isinstance(schema, dict))
    .map(lambda schema: schema | {"$defs": {"色": {"enum": ["赤", "㈱"]}}})
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(SCHEMAS, st.sampled_from([30, 60, 256]), st.integers(0, 10**6))
def test_answers_to_any_schema_end_and_follow_it(schema: Schema, room: int, seed: int) -> None:
    model = embedded()
    try:
        constraint = model.constraints.json_schema(schema, max_tokens=room)
    except ParameterError as error:
        assert "cannot be used" not in str(error)
        return
    for each in (2 * seed, 2 * seed + 1):
        answer = wander(model.tokenizer, constraint, each, room)
        if not answer.ended:
            assert min_chars(model, schema) > room - 2
            continue
        Draft202012Validator(parsed(json.dumps(schema))).validate(parsed(answer.text))
