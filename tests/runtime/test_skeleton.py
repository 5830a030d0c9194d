"""Schemas as plans: the JSON follows the schema, whatever the model replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from issun.runtime.constraint.references import Document
from issun.runtime.errors import ParameterError
from issun.runtime.filling.leaves import Query
from issun.runtime.filling.skeleton import make_plan

Schema = dict[str, Any]
Answer = Callable[[Query], str]


def obj(*optional: str, **properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def fill(schema: Schema, answer: Answer, question: str = "") -> Any:
    plan = make_plan(schema)
    assert plan
    steps, text, asked = plan.fill(question), "", []
    sent: str | None = None
    while True:
        try:
            step = steps.send(sent)  # type: ignore[arg-type]
        except StopIteration:
            break
        sent = None
        if isinstance(step, str):
            text += step
        else:
            asked.append(step)
            sent = answer(step)
    allowed = {(query.pattern, query.place) for query in plan.queries}
    assert {(query.pattern, query.place) for query in asked} <= allowed  # compiled in advance
    return json.loads(text)


def says(*answers: str) -> Answer:
    left = list(answers)
    return lambda query: left.pop(0)


def lines(schema: Schema, *answers: str) -> list[str]:
    found: list[str] = []

    def answer(query: Query) -> str:
        found.append(query.line)
        return answers[len(found) - 1]

    fill(schema, answer)
    return found


@pytest.mark.parametrize(
    ("kind", "answer", "value"),
    [
        (TEXT, "パリ", "パリ"),
        (TEXT, "フランスの首都はパリです。", "パリ"),
        (TEXT, "フランスの首都はパリなのだ。", "パリ"),
        (TEXT, "「パリ」", "パリ"),
        (TEXT, "パリの人口は200万人です。", "パリの人口は200万人です。"),
        (TEXT, "フランスの首都はパリで、大きいです。", "フランスの首都はパリで、大きいです。"),
        (TEXT, '"と\\と\n', '"と\\と'),
        ({"type": "string", "maxLength": 2}, "マドリード", "マド"),
        ({"enum": ["パリ", "パリス"]}, "フランスの首都はパリス。", "パリス"),
        ({"enum": ["a", 1, None, True]}, "1", 1),
        ({"enum": ["a", 1, None, True]}, "なし", None),
        ({"enum": ["a", 1], "type": "integer"}, "", 1),
        ({"const": [1, {"a": None}]}, "", [1, {"a": None}]),
        ({"anyOf": [{"const": "赤", "title": "red"}, {"const": "青"}]}, "色は青です", "青"),
        ({"allOf": [{"enum": ["x", "y"]}], "default": "x"}, "y", "y"),
        (WHOLE, "5+7は12です。", 12),
        (WHOLE, "5+7=12", 12),
        (WHOLE, "-3", -3),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "評価は4点です。", 4),
        ({"type": "number"}, "円周率は3.14です。", 3.14),
        ({"type": "boolean"}, "はい、そうです。", True),
        ({"type": "boolean"}, "いいえ、違います。", False),
        ({"type": "null"}, "", None),
        ({"type": ["integer", "null"]}, "なしです。", None),
        ({"anyOf": [TEXT, {"type": "null"}]}, "なし。", None),
        ({"anyOf": [TEXT, {"type": "null"}]}, "首都はパリです。", "パリ"),
        ({"type": "string", "format": "date"}, "日付は2024-05-06です。", "2024-05-06"),
        ({"type": "string", "pattern": r"^\d{3}-\d{4}$"}, "100-0001", "100-0001"),
        ({"type": "array", "items": TEXT}, "首都は、赤、青です。", ["赤", "青"]),
        ({"type": "array", "items": TEXT, "maxItems": 1}, "赤、青", ["赤"]),
        ({"type": "array", "items": TEXT}, "なし", []),
        ({"type": "array", "items": WHOLE}, "1、2と30です。", [1, 2, 30]),
        ({"type": "array", "items": {"enum": ["赤", "青"]}, "uniqueItems": True}, "赤、赤", ["赤"]),
        ({"type": "object", "properties": {}, "additionalProperties": False}, "", {}),
    ],
)
def test_a_value_is_parsed_from_a_sentence(kind: Schema, answer: str, value: Any) -> None:
    schema = obj(首都=kind)
    found = fill(schema, says(answer), "フランスの首都は?")
    assert found == {"首都": value}
    assert type(found["首都"]) is type(value)
    Draft202012Validator(schema).validate(found)


@pytest.mark.parametrize(
    ("kind", "answers", "value"),
    [
        ({"type": "integer", "minimum": 1000}, ["5+7は12です。", "1000"], 1000),
        ({"type": "integer", "multipleOf": 5}, ["12", "10"], 10),
        ({"type": "number", "exclusiveMaximum": 1}, ["1", "0.5"], 0.5),
        ({"type": "string", "minLength": 3}, ["山", "富士山"], "富士山"),
        ({"type": "array", "items": TEXT, "minItems": 2}, ["赤", "赤、青"], ["赤", "青"]),
    ],
)
def test_a_value_out_of_bounds_is_asked_for_again(
    kind: Schema, answers: list[str], value: Any
) -> None:
    assert fill(obj(答え=kind), says(*answers)) == {"答え": value}


def test_properties_are_asked_for_by_name_in_the_schema_s_order() -> None:
    schema = obj(
        首都=TEXT,
        population={"type": "integer", "description": "人口。"},
        sea={"type": "boolean", "title": "海に面しているか"},
        area={"type": "number", "title": "Area"},
        住所=obj(市=TEXT, why=TEXT | {"description": "なぜですか?"}),
    )
    assert lines(schema, "パリ", "1", "はい", "2", "市", "理由") == [
        "首都は?",
        "人口は?",
        "海に面しているかはいかいいえで答えてください。",
        "areaは?",
        "住所の市は?",
        "住所のなぜですか?",
    ]


def test_an_optional_property_may_be_omitted() -> None:
    schema = obj("山", "川", 山=TEXT, 川=WHOLE, 海=TEXT)
    assert fill(schema, says("なし", "なし", "なし")) == {"海": "なし"}
    assert fill(schema, says("富士山", "川は3です", "青い")) == {
        "山": "富士山",
        "川": 3,
        "海": "青い",
    }
    assert fill(obj("山", 山=TEXT), says("なし")) == {}


def test_objects_of_a_list_are_counted_and_then_filled() -> None:
    schema = {"type": "array", "items": obj(名=TEXT), "minItems": 1}
    assert fill(obj(人=schema), says("2", "太郎", "花子")) == {
        "人": [{"名": "太郎"}, {"名": "花子"}]
    }
    fixed = obj(人=schema | {"minItems": 2, "maxItems": 2})
    assert lines(fixed, "2", "太郎", "花子")[1:] == ["1番目の人の名は?", "2番目の人の名は?"]


def test_references_are_followed_by_any_pointer() -> None:
    schema = obj(
        a={"$ref": "#/$defs/色~1柄"}, b={"$ref": "#/properties/c/properties/d"}, c=obj(d=WHOLE)
    )
    schema["$defs"] = {"色/柄": {"enum": ["赤", "青"], "description": "色"}}
    assert lines(schema, "赤", "1", "2") == ["色は?", "bは?", "cのdは?"]
    escaped = obj(a={"$ref": "#/%24defs/x"}) | {"$defs": {"x": {"const": 3}}}
    assert fill(escaped, says()) == {"a": 3}


def test_recursion_is_left_to_the_grammar() -> None:
    tree = obj(名=TEXT, 子={"type": "array", "items": {"$ref": "#/$defs/木"}})
    schema = {"$ref": "#/$defs/木", "$defs": {"木": tree}}
    assert fill(schema, says("幹", '[{"名":"枝","子":[]}]')) == {
        "名": "幹",
        "子": [{"名": "枝", "子": []}],
    }
    itself = obj(名=TEXT, 子={"type": "array", "items": {"$ref": "#"}})
    assert fill(itself, says("幹", "[]")) == {"名": "幹", "子": []}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": WHOLE},
        {"anyOf": [TEXT, WHOLE]},
        {"oneOf": [obj(a=TEXT), obj(b=TEXT)]},
        {"type": "array", "prefixItems": [TEXT]},
        {"type": "object", "properties": {"a": TEXT}, "required": ["b"]},
        {"type": "string", "pattern": "a+", "maxLength": 3},
        {"allOf": [{"properties": {"a": TEXT}}, {"required": ["a"]}]},
    ],
)
def test_what_has_no_skeleton_is_one_leaf_or_no_plan(part: Schema) -> None:
    plan = make_plan(obj(名=TEXT, 他=part))
    assert plan
    assert [query.place for query in plan.queries] == [None, "#/properties/他"]
    assert make_plan(part) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/s"},
        {"$ref": "#/$defs/none"},
        {"type": "no"},
        {"type": [{"type": "string"}]},
        {"type": "integer", "minimum": "5"},
        {"type": "string", "minLength": "3"},
        {"type": "string", "minLength": -1},
        {"type": "integer", "multipleOf": 0},
        {"type": "integer", "minimum": 1, "maximum": 100, "multipleOf": 1000},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "array", "items": WHOLE, "minItems": 5, "maxItems": 3},
        {"type": "array", "items": TEXT, "uniqueItems": "yes"},
        {"type": "string", "not": {"const": "x"}},
        {"enum": ["a"], "pattern": "b"},
        {"const": 5, "type": "string"},
        {"oneOf": [{"enum": ["x", "y"]}, {"enum": ["y", "z"]}]},
        {"$ref": "#/properties/a"},
        {"anyOf": [TEXT, 3]},
    ],
)
def test_invalid_and_unsatisfiable_schemas_are_refused_with_their_place(schema: Schema) -> None:
    with pytest.raises(ParameterError, match=r"^#/properties/a"):
        make_plan(obj(名=TEXT, a=schema))


@pytest.mark.parametrize(
    ("schema", "answers", "value"),
    [
        ({"anyOf": [{"enum": ["x", "yyy"], "maxLength": 1}, {"const": "z"}]}, ["z"], "z"),
        ({"enum": [1, 2, "b"], "type": "string"}, [], "b"),
        ({"const": "b", "maxLength": 1}, [], "b"),
        ({"enum": [5, 15, 25], "minimum": 10, "exclusiveMaximum": 25}, [], 15),
        ({"type": "array", "items": TEXT, "maxItems": 2.0}, ["赤、青、黄"], ["赤", "青"]),
        (WHOLE | {"minimum": 0, "exclusiveMinimum": True}, ["0", "3"], 3),
        ({"type": "number", "multipleOf": 0.1}, ["0.3"], 0.3),
        (TEXT | {"description": 5, "title": None}, ["赤"], "赤"),
    ],
)
def test_every_keyword_next_to_an_enum_counts(
    schema: Schema, answers: list[str], value: Any
) -> None:
    assert fill(obj(a=schema), says(*answers)) == {"a": value}


def test_required_as_a_flag_has_no_effect() -> None:
    schema = {"type": "object", "properties": {"a": WHOLE}, "required": True}
    assert fill(schema, says("3")) == {"a": 3}


def test_unsatisfiable_items_give_an_empty_list() -> None:
    assert fill(obj(a={"type": "array", "items": False}), says()) == {"a": []}


def test_exponential_references_stay_small() -> None:
    definitions = {
        f"d{n}": obj(a={"$ref": f"#/$defs/d{n + 1}"}, b={"$ref": f"#/$defs/d{n + 1}"})
        for n in range(40)
    }
    definitions["d40"] = TEXT
    assert make_plan({"$ref": "#/$defs/d0", "$defs": definitions}) is None


def test_a_text_that_cannot_be_spelled_is_reported_with_its_place() -> None:
    places: list[str] = []

    def spell(text: str, path: str) -> str:
        places.append(path)
        return text

    make_plan(obj(顔=obj(色=TEXT | {"enum": ["😀", "その他"]})), spell)
    assert places == [f"#/properties/顔/properties/色/enum/{n}" for n in range(2)]


def test_a_vocabulary_without_hai_and_iie_uses_true_and_false() -> None:
    def spell(text: str, path: str) -> str:
        if not text.isascii():
            raise ParameterError("no")
        return text

    plan = make_plan(obj(a={"type": "boolean"}), spell)
    assert plan
    steps = plan.fill("")
    next(steps)
    assert steps.send("true") == '{"a":true'


def test_a_normalized_text_is_restored_to_the_schema_s_literal() -> None:
    forms = {"㈱山田": "(株)山田", "その他": "その他"}
    plan = make_plan(obj(社=TEXT | {"enum": list(forms)}), lambda text, path: forms[text])
    assert plan
    steps = plan.fill("")
    next(steps)
    assert steps.send("(株)山田です。") == '{"社":"㈱山田"'


WORDS = st.sampled_from(
    ["赤", "青", "はい", "なし", "1", "10", "100", "a.b", "[x]", "日本", "日本語"]
)
BOUNDS = st.integers(-50, 50)


def bounded(kind: str) -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda low, size, factor: (
            {"type": kind}
            | ({} if low is None else {"minimum": low})
            | ({} if low is None or size is None else {"exclusiveMaximum": low + size})
            | ({} if factor is None else {"multipleOf": factor})
        ),
        st.none() | BOUNDS,
        st.none() | st.integers(12, 300),
        st.none() | st.sampled_from([1, 2, 5]),
    )


SCALARS = st.one_of(
    st.just(TEXT),
    st.builds(lambda m: {"type": "string", "maxLength": m}, st.integers(0, 9)),
    st.builds(lambda m: {"type": "string", "minLength": m, "maxLength": m + 9}, st.integers(0, 9)),
    st.builds(lambda v: {"enum": v}, st.lists(WORDS | BOUNDS, min_size=1, unique_by=repr)),
    bounded("integer"),
    bounded("number"),
    st.sampled_from([{"type": "boolean"}, {"type": ["integer", "null"]}, {"type": "null"}]),
    st.sampled_from(["date", "time", "date-time", "uuid", "ipv4", "ipv6", "email", "hostname"]).map(
        lambda form: {"type": "string", "format": form}
    ),
    st.just({"type": "string", "pattern": "^[あ-ん]{2,4}$"}),
)


def around(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    objects = st.dictionaries(st.text(min_size=1, max_size=3), inner, min_size=1, max_size=3)
    lists = st.builds(
        lambda item, least, more: (
            {"type": "array", "items": item, "minItems": least}
            | ({} if more is None else {"maxItems": least + more})
        ),
        inner,
        st.integers(0, 2),
        st.none() | st.integers(0, 3),
    )
    either = inner.map(lambda one: {"anyOf": [one, {"type": "null"}]})
    whole = st.builds(
        lambda properties, some: {
            "type": "object",
            "properties": properties,
            "required": list(properties)[:some],
            "additionalProperties": False,
        },
        objects,
        st.integers(0, 3),
    )
    return whole | lists | either


def obeying(schema: Any) -> str:
    """Return JSON that follows `schema`, as a grammar would make the model write it."""
    validator = Draft202012Validator(schema)
    candidates = [*range(-60, 400), None, [], {}, "あ", *([], [[]], [0], [0, 0], ["あ"])]
    valid = [c for c in candidates if validator.is_valid(c)]
    assume(valid)
    return json.dumps(valid[0], ensure_ascii=False)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.recursive(SCALARS, around, max_leaves=6))
def test_the_schema_is_followed_whatever_the_replies(data: st.DataObject, inner: Schema) -> None:
    schema = obj(名=inner)
    plan = make_plan(schema)
    assert plan

    def answer(query: Query) -> str:
        if query.place is not None:
            return obeying(Document(schema).at(query.place))
        if query.pattern is not None:
            return data.draw(st.from_regex(query.pattern, fullmatch=True))
        return data.draw(st.text(max_size=20) | WORDS | st.just("名は赤です。"))

    forms = FormatChecker(["date", "email", "ipv4", "ipv6", "uuid"])
    Draft202012Validator(schema, format_checker=forms).validate(fill(schema, answer))
