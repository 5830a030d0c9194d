"""Schemas that would take minutes or never end before there is a grammar to compile."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from issun.runtime import Model
from issun.runtime.constraint import effort as efforts
from issun.runtime.constraint import matching
from issun.runtime.constraint.effort import MAX_SECONDS, ActiveSchemas, Effort
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import BusyError, CompilerBusyError, ParameterError, SamplingError
from issun.runtime.filling.fill import compile_schema

WORD = "a" * 40 + "!"
ENDLESS = r"^(a+)+$"  # never ends in WORD
PATTERNS = {
    "of an enum": {"enum": [WORD], "pattern": ENDLESS},
    "of names": {"type": "object", "patternProperties": {ENDLESS: True}, "required": [WORD]},
    "of alternatives": {
        "type": "object",
        "patternProperties": {"^(a|a)*$": True},
        "required": [WORD],
    },
}
MANY = {
    "oneOf": {"oneOf": [{"type": "string", "minLength": i, "maxLength": i} for i in range(1000)]},
    "objects": {
        "oneOf": [
            {
                "required": ["kind"],
                "properties": {"kind": {"const": i}} | {f"n{j}": {} for j in range(9)},
            }
            for i in range(160)
        ]
    },
    "references": {
        "$defs": {f"n{i}": {"allOf": [{"$ref": f"#/$defs/n{i + 1}"}] * 2} for i in range(30)}
        | {"n30": {"type": "string"}},
        "$ref": "#/$defs/n0",
    },
}
LARGE = {
    "objects in objects": json.loads('{"properties":{"a":' * 400 + "{}" + "}}" * 400),
    "items of items": json.loads('{"items":' * 900 + "{}" + "}" * 900),
    "a constant": {"const": json.loads("[" * 800 + "]" * 800)},
}


@pytest.fixture(scope="module")
def model() -> Any:
    with Model.load(threads=1) as loaded:
        yield loaded


@pytest.mark.sampled
@pytest.mark.parametrize("name", PATTERNS)
def test_searches_for_patterns_are_limited(model: Model, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(ParameterError, match="pattern takes more than 5 s"):
        compile_schema(model, PATTERNS[name], max_tokens=64)
    with pytest.raises(ParameterError, match="pattern takes more than 5 s"):
        model.constraints.json_schema(PATTERNS[name])
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("name", MANY)
def test_preparing_schemas_is_limited(
    model: Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efforts, "MAX_SECONDS", 0.2)
    with pytest.raises(ParameterError, match="schema takes more than"):
        compile_schema(model, MANY[name], max_tokens=64)
    with pytest.raises(ParameterError, match="schema takes more than"):
        model.constraints.json_schema(MANY[name])


@pytest.mark.parametrize("name", LARGE)
def test_schemas_that_are_too_deep_are_refused(model: Model, name: str) -> None:
    with pytest.raises(ParameterError, match="too large"):
        compile_schema(model, LARGE[name], max_tokens=64)
    with pytest.raises(ParameterError, match="too large"):
        model.constraints.json_schema(LARGE[name])


@pytest.mark.parametrize("most", [10**5, 10**12, 10**400])
def test_lists_of_any_length_cost_the_same(model: Model, most: int) -> None:
    one = {"type": "array", "maxItems": most, "items": {"type": "boolean"}}
    text = {"type": "array", "items": {"type": "string", "maxLength": most}}
    for schema in (one, text, {"type": "array", "items": one}):
        assert compile_schema(model, schema, max_tokens=64)
        assert model.constraints.json_schema({"properties": {"a": schema}, "required": ["a"]})
    with pytest.raises(ParameterError, match="needs at least"):
        model.constraints.json_schema({"type": "array", "minItems": most, "items": {}})


def test_stopping_ends_the_work_soon(model: Model) -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            compile_schema(model, MANY["oneOf"], max_tokens=64)
        except BusyError as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    model.preparation.stop()
    thread.join(5)
    model.preparation.resume()
    assert found
    assert compile_schema(model, {"type": "boolean"}, max_tokens=64)  # new schemas can be prepared


def test_the_number_of_schemas_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efforts, "MAX_SCHEMAS", 2)
    active = ActiveSchemas()
    with Effort(active=active), Effort(active=active), pytest.raises(CompilerBusyError):
        Effort(active=active).__enter__()
    with Effort(active=active):
        assert active.count == 1


def test_nothing_is_limited_after_the_end() -> None:
    asked: list[str] = []

    def search(pattern: str, text: str) -> bool:
        asked.append(text)
        return False

    with Effort(search=search) as effort:
        assert not effort.finds("(a*)*b", "c")
        assert not effort.finds("(a*)*b", "c")  # asked once
    assert effort.finds("(a*)*b", "d")
    assert not effort.finds("^b+$", "d")  # needs no other process
    assert asked == ["c"]
    end = time.thread_time() + MAX_SECONDS / 10
    while time.thread_time() < end:
        effort.check()


def test_a_child_process_reads_patterns_like_python(model: Model) -> None:
    finds = model.constraints.finds
    assert finds("(日|月)+曜", "日曜")
    assert not finds("^(日|月)+$", "日曜")
    assert finds("(", "")  # Python cannot tell, the grammar will
    assert finds("(" * 5000 + ")" * 5000, "")
    assert finds("(a|b){99999999999}", "")


def test_the_search_for_the_shortest_match_is_limited(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efforts, "MAX_SECONDS", 0.0)
    with pytest.raises(ParameterError, match="regex takes more than 0 s"):
        model.constraints.regex("[0-9]{100}", max_tokens=5)


def test_a_mask_that_takes_too_long_ends_the_answer(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "MASK_SECONDS", -1.0)
    params = SamplingParams(constraint=model.constraints.regex("[0-9]{3}"))
    with pytest.raises(SamplingError, match="for one token: simplify it"):
        model.generate("1", params)
    monkeypatch.undo()
    assert len(model.generate("1", params).text) == 3
