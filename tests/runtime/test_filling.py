"""JSON filled leaf by leaf by the embedded model, alone and in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from issun.runtime import Model, ParameterError, SamplingParams
from issun.runtime.decoding.generate import Segment, Timings
from issun.runtime.filling.fill import (
    CompiledSchema,
    MakePrompt,
    SchemaFiller,
    compile_schema,
    fill,
    fill_many,
)

GREEDY = SamplingParams(temperature=0, max_new_tokens=60)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"首都": {"type": "string"}, "大陸": {"enum": ["アジア", "ヨーロッパ"]}},
    "required": ["首都", "大陸"],
}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.load(threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def form(model: Model) -> CompiledSchema:
    found = compile_schema(model, SCHEMA, max_tokens=60)
    assert found
    return found


def about(model: Model, country: str) -> tuple[MakePrompt, str]:
    question = f"{country}について教えて"
    return lambda line: model.prompt(f"{question}\n{line}"), question


def test_segments_join_to_the_json_and_count_everything(model: Model, form: CompiledSchema) -> None:
    make_prompt, question = about(model, "フランス")
    segments = list(fill(model, form, make_prompt, question, GREEDY))
    assert "".join(s.text for s in segments) == '{"首都":"パリ","大陸":"ヨーロッパ"}'
    assert [s.finish_reason for s in segments] == [None] * (len(segments) - 1) + ["stop"]
    last = segments[-1].timings
    assert last.new_tokens == len(segments)
    assert last.prompt_tokens == sum(len(make_prompt(line)) for line in ("首都は?", "大陸は?"))
    assert last.reused_tokens >= 9  # the beginning of the second prompt


def test_batched_answers_equal_single_ones(model: Model, form: CompiledSchema) -> None:
    countries = ["フランス", "日本", "タイ", "ドイツ", "中国"]
    params = replace(GREEDY, temperature=1.0, seed=3)
    asked = [(*about(model, country), params) for country in countries]
    alone = [fill(model, form, *one).finish().text for one in asked]
    ended: list[int] = []
    many = fill_many(model, form, asked, slots=3, on_complete=lambda place, _: ended.append(place))
    assert [completion.text for completion in many] == alone
    assert sorted(ended) == list(range(5))
    assert json.loads(many[1].text)["首都"] == "東京"


def test_a_stream_that_is_closed_leaves_the_model_free(model: Model, form: CompiledSchema) -> None:
    stream = fill(model, form, *about(model, "フランス"), GREEDY)
    next(stream)
    stream.close()
    model.check_free()
    cancelled = fill(model, form, *about(model, "フランス"), GREEDY)
    next(cancelled)
    assert cancelled.cancel().finish_reason == "cancelled"
    model.check_free()


def test_a_stop_string_ends_a_value_and_not_the_json(model: Model, form: CompiledSchema) -> None:
    params = replace(GREEDY, stop=("パリ", "は"))
    text = fill(model, form, *about(model, "フランス"), params).finish().text
    assert json.loads(text) == {"首都": "フランスの首都", "大陸": "ヨーロッパ"}


def test_seeds_differ_from_value_to_value(form: CompiledSchema) -> None:
    filling = SchemaFiller(form, "", replace(GREEDY, seed=5))
    assert filling.pending
    first = filling.pending[1].seed
    filling.add(Segment(1, "パリ", "stop", Timings(new_tokens=4)))
    assert filling.pending
    line, params = filling.pending
    assert (line, params.max_new_tokens) == ("大陸は?", 53)
    assert first == 5
    assert params.seed not in (None, 5, 6)


def listed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    "schema",
    [
        listed(題={"type": "string"}, 文={"type": "string"}),
        listed(文={"type": "string"}, 数={"type": "integer"}, 後={"type": "string"}),
        listed(文=listed(語={"type": "array", "items": {}}), 後={"type": "string"}),
        listed(**{name: {"type": "integer"} for name in "abcde"}),
        listed(
            話={"type": "array", "items": listed(年={"type": "integer"}, 題={"type": "string"})}
        ),
        listed(日={"type": "string", "format": "date"}, 数={"type": "number"}, 文={}),
    ],
)
def test_unbounded_values_share_the_budget(model: Model, schema: dict[str, Any]) -> None:
    question = "桃太郎の話をとても長く書いてください。"
    form = compile_schema(model, schema, max_tokens=60)
    assert form
    for seed in range(5):
        params = SamplingParams(temperature=1, max_new_tokens=60, seed=seed)
        done = fill(model, form, lambda line: model.prompt(question + line), question, params)
        answer = done.finish()
        assert answer.finish_reason == "stop"
        assert json.loads(answer.text).keys() == schema["properties"].keys()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"type": "string", "pattern": "[a-z"}, "#/properties/名~1号/pattern: unclosed"),
        ({"type": "string", "pattern": "^㈱"}, "#/properties/名~1号/pattern: the model's vocabul"),
        ({"type": "string", "pattern": "(?=a)a"}, "#/properties/名~1号/pattern: look-around"),
        ({"enum": ["赤", "😀"]}, "#/properties/名~1号/enum/1: the model's vocabulary cannot"),
        ({"anyOf": [{"type": "string", "pattern": "[a-"}, {}]}, "#/properties/名~1号/anyOf/0/patt"),
        ({"type": "integer", "not": {"const": 3}}, "#/properties/名~1号/not is not supported"),
        (
            {"type": "string", "minLength": 10**9},
            "#/properties/名~1号: not even the shortest value",
        ),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 10**6}, "名~1号 needs"),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 50}, "名~1号 needs"),
        ({"$ref": "#/properties/名~1号"}, "#/properties/名~1号 is a circular reference"),
    ],
)
def test_errors_name_the_place_in_the_whole_schema(
    model: Model, kind: dict[str, Any], told: str
) -> None:
    with pytest.raises(ParameterError) as error:
        compile_schema(model, listed(**{"題": {"type": "string"}, "名/号": kind}), max_tokens=60)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("kind", "room"),
    [
        ({"type": "integer"}, 9),
        ({"enum": ["赤", "青"]}, 9),
        ({"type": "array", "items": listed(x={"type": "integer"}), "minItems": 2}, 29),
    ],
)
def test_more_values_than_the_budget_allows_are_refused(
    model: Model, kind: dict[str, Any], room: int
) -> None:
    schema = listed(**dict.fromkeys("abcde", kind))
    with pytest.raises(ParameterError, match=f"but the answer is limited to {room}."):
        compile_schema(model, schema, max_tokens=room)
    assert compile_schema(model, schema, max_tokens=room + 1)


def test_a_bounded_text_is_truncated_and_the_json_continues(model: Model) -> None:
    short = {
        "type": "object",
        "properties": {"首都": {"type": "string", "maxLength": 1}},
        "required": ["首都"],
    }
    form = compile_schema(model, short, max_tokens=200)
    assert form
    filling = SchemaFiller(form, "", replace(GREEDY, max_new_tokens=200))
    assert filling.pending
    most = filling.pending[1].max_new_tokens
    assert most < 100
    last = filling.add(Segment(1, "マドリード", "length", Timings(new_tokens=most)))
    assert (last.text, last.finish_reason) == ('{"首都":"マ"}', "stop")
