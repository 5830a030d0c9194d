"""Answers follow a schema, choices or a pattern, whatever the model's logits are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from issun.runtime import Model, ParameterError, SamplingParams
from issun.runtime.constraint import pool

pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.load(threads=1) as found:
        yield found


def say(model: Model, params: SamplingParams) -> str:
    return model.generate(model.prompt("日本で一番高い山は?"), params).text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_answer_is_one_of_the_choices(model: Model, temperature: float) -> None:
    choices = ["日本で一番高い山は琵琶湖です。", "日本で一番高い山は富士山です。", "東京 タワー"]
    constraint = model.constraints.choices(choices)
    for seed in range(8):
        params = SamplingParams(temperature=temperature, seed=seed, constraint=constraint)
        assert say(model, params) in choices
    assert say(model, SamplingParams(temperature=0, constraint=constraint)) == choices[1]


def test_what_takes_too_long_to_compile_is_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_SECONDS", 1.0)
    patterns = [f"^(a|b)*a(a|b){{{n}}}$" for n in range(25)]
    schema = {"allOf": [{"type": "string", "pattern": pattern} for pattern in patterns]}
    with pytest.raises(ParameterError, match="more than 1 s to compile"):
        model.constraints.json_schema(schema)


@pytest.mark.parametrize("pattern", ["a/b", r"a\/b", r"a[/]b", r"a[\/]b"])
def test_a_slash_may_be_escaped(model: Model, pattern: str) -> None:
    constraint = model.constraints.regex(pattern)
    assert say(model, SamplingParams(temperature=0, constraint=constraint)) == "a/b"


def test_a_pattern_is_matched_as_a_whole(model: Model) -> None:
    constraint = model.constraints.regex("[0-9]{3}/[0-9]{2}")
    for seed in range(4):
        text = say(model, SamplingParams(temperature=1.5, seed=seed, constraint=constraint))
        assert re.fullmatch("[0-9]{3}/[0-9]{2}", text)


def test_the_same_constraint_serves_many_answers(model: Model) -> None:
    params = SamplingParams(seed=1, constraint=model.constraints.choices(["はい", "いいえ"]))
    prompts = [model.prompt(f"{n}は偶数ですか?") for n in range(5)]
    answers = model.generate_many(prompts, params)
    assert [a.text for a in answers] == [model.generate(p, params).text for p in prompts]
    assert {a.text for a in answers} <= {"はい", "いいえ"}
    assert all(a.finish_reason == "stop" for a in answers)


def test_lookup_changes_nothing(model: Model) -> None:
    constraint = model.constraints.regex("(123){8,12}")
    params = SamplingParams(temperature=0.7, seed=3, constraint=constraint)
    assert say(model, params) == say(model, replace(params, lookup=False))


def test_json_follows_its_schema(model: Model) -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "maximum": 999},
            "b": {"enum": ["x", "y"]},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    constraint = model.constraints.json_schema(schema)
    for seed in range(3):
        params = SamplingParams(seed=seed, max_new_tokens=200, constraint=constraint)
        found = json.loads(say(model, params))
        assert 0 <= found["a"] <= 999
        assert found["b"] in ("x", "y")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"type": "object", "description": "あ" * 30_000},
    ],
)
def test_an_unsupported_schema_is_refused(model: Model, schema: dict[str, str]) -> None:
    with pytest.raises(ParameterError):
        model.constraints.json_schema(schema)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b"])
def test_a_bad_pattern_is_refused(model: Model, pattern: str) -> None:
    with pytest.raises(ParameterError, match="constraint cannot be used"):
        model.constraints.regex(pattern)


@pytest.mark.parametrize("choices", [[], [""], ["あ" * 30_000]])
def test_bad_choices_are_refused(model: Model, choices: list[str]) -> None:
    with pytest.raises(ParameterError, match="choices"):
        model.constraints.choices(choices)
