"""Rows to requests, and responses to output lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from issun.cluster.requests import (
    Template,
    batch_request,
    body_fields,
    decode,
    digest_of,
    kind_in,
    kind_of,
    make_error_line,
    output_line,
    simple_request,
)
from issun.runtime import ParameterError
from issun.server.errors import ApiError, error_object

DIGEST = digest_of(0, 0, {"custom_id": "a"})
LINE = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}}


def prompt_of(instruction: str, input_text: str | None) -> list[int]:
    return [len(instruction), len(input_text or "")]


def simple(row: dict[str, Any], template: str | None = None) -> dict[str, Any]:
    chosen = None if template is None else Template(template)
    return simple_request(row, {"max_tokens": 9}, DIGEST, chosen, prompt_of).body


def test_the_kind_of_a_row() -> None:
    for row in (LINE, {**LINE, "prompt": "x"}, {"custom_id": "a", "body": {}}, {"url": "/v1/x"}):
        assert kind_of(row) == "batch"
    assert kind_of({"custom_id": "a", "method": "POST"}) == "batch"
    for fields in ({"prompt": "x"}, {"instruction": "x"}, {"instruction": "x", "body": "y"}):
        assert kind_of({"custom_id": "a", "url": "https://example.jp/1", **fields}) == "simple"
    dish = {"custom_id": "a", "title": "餅", "method": "焼く"}
    for row in (dish, {"custom_id": "a", "body": {}}, {"url": "/v1/list", "title": "x"}):
        assert kind_of(row, template=True) == "simple"
    assert kind_of(LINE, template=True) == "batch"
    for other in (
        {},
        dish,
        {"custom_id": "a"},
        {"body": "本文", "url": "https://example.jp"},
        None,
        [],
    ):
        assert kind_of(other) is None


def test_a_file_of_requests_may_have_simple_rows_too() -> None:
    assert kind_in("batch", LINE) == kind_in("batch", {"custom_id": "a"}) == "batch"
    assert kind_in("batch", {"prompt": "x"}) == "simple"
    assert kind_in("simple", LINE) == "simple"


def test_a_template_is_filled_by_a_row() -> None:
    template = Template("「{題}」{{要約}}: {text}")
    assert template.names == ["題", "text"]
    assert template.fill({"題": "山", "text": 3}) == "「山」{要約}: 3"
    for row in ({"題": "山"}, {"題": "山", "text": None}):
        with pytest.raises(ApiError, match="text: the template needs this field"):
            template.fill(row)


@pytest.mark.parametrize("text", ["{", "a}", "{}", "{a!r}", "{a:3}", "no field", "{{a}}"])
def test_malformed_templates(text: str) -> None:
    with pytest.raises(ParameterError, match=r"template"):
        Template(text)


def test_a_simple_row() -> None:
    assert simple({"prompt": "x"}) == {"max_tokens": 9, "seed": int(DIGEST[:15], 16), "prompt": "x"}
    assert simple({"instruction": "abc"})["prompt"] == [3, 0]
    assert simple({"instruction": "abc", "input": "de"})["prompt"] == [3, 2]
    assert simple({"instruction": "abc", "input": None})["prompt"] == [3, 0]
    # Empty cells of a table.
    assert simple({"prompt": "", "instruction": "abc", "input": ""})["prompt"] == [3, 0]
    assert simple({"prompt": "x", "instruction": ""})["prompt"] == "x"
    assert simple({"a": "xyz", "input": "not used", "prompt": "nor this"}, "{a}!")["prompt"] == [
        4,
        0,
    ]


@pytest.mark.parametrize(
    ("row", "param"),
    [
        ({}, "instruction"),
        ({"instruction": "  "}, "instruction"),
        ({"instruction": 3}, "instruction"),
        ({"instruction": "a", "input": 3}, "input"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "a", "status": "b"}, "status"),
        ({"prompt": "a", "instruction": "b"}, "prompt"),
    ],
)
def test_wrong_simple_rows(row: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        simple(row)
    assert caught.value.param == param


def test_a_line_of_openai_s_format_keeps_what_it_sets() -> None:
    defaults = {"temperature": 0.1, "max_tokens": 5}
    body = {"prompt": "x", "temperature": 1.0, "top_p": None}
    url, found = batch_request({**LINE, "body": body}, defaults, DIGEST)
    assert url == "/v1/completions"
    assert found == {
        "prompt": "x",
        "temperature": 1.0,
        "max_tokens": 5,
        "seed": int(DIGEST[:15], 16),
    }
    body = {"prompt": "x", "max_completion_tokens": 3, "seed": 4}
    _, found = batch_request({**LINE, "body": body}, defaults, DIGEST)
    assert found == {"prompt": "x", "temperature": 0.1, "max_completion_tokens": 3, "seed": 4}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"custom_id": None}, "custom_id"),
        ({"custom_id": 3}, "custom_id"),
        ({"method": "GET"}, "method"),
        ({"url": "/v1/embeddings"}, "url"),
        ({"body": "x"}, "body"),
        ({"body": {"stream": True}}, "body.stream"),
    ],
)
def test_wrong_lines_of_openai_s_format(change: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        batch_request(LINE | change, {}, DIGEST)
    assert caught.value.param == param


@pytest.mark.parametrize("url", ["/v1/responses", "/v1/embeddings", None])
def test_another_url_is_an_error_that_names_those_taken(url: str | None) -> None:
    with pytest.raises(ApiError, match="one of /v1/chat/completions, /v1/completions") as caught:
        batch_request(LINE | {"url": url}, {}, DIGEST)
    line = json.loads(
        output_line("batch", LINE, DIGEST, caught.value.status, error_object(caught.value))
    )
    assert (line["custom_id"], line["response"]["status_code"]) == ("a", 400)


@pytest.mark.parametrize("raw", [b"x", b"\xff", b"[1]", b'{"a":', b"[" * 10**5, b'{"a":"\\ud800"}'])
def test_rows_that_are_no_objects(raw: bytes) -> None:
    with pytest.raises(ApiError, match="The row is not"):
        decode(raw)
    assert json.loads(make_error_line("batch", 0, 3, raw))["response"]["status_code"] == 500


def test_seeds_follow_the_id_or_else_the_place() -> None:
    assert digest_of(0, 1, {"custom_id": "a"}) == digest_of(0, 2, {"custom_id": "a"})
    assert digest_of(0, 1, {}) != digest_of(0, 2, {})
    assert digest_of(0, 1, {"custom_id": "a"}) != digest_of(1, 1, {"custom_id": "a"})
    assert digest_of(0, 1, {"custom_id": ""}) == digest_of(0, 1, {"custom_id": None})


def test_an_output_line_has_nothing_of_its_moment() -> None:
    body = {
        "id": "chatcmpl-random",
        "created": 123,
        "choices": [
            {"index": 0, "message": {"content": None, "tool_calls": [{"id": "call_x"}]}},
            {"index": 1, "message": {"content": "山"}},
        ],
        "usage": {"total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}},
        "issun": {"tokens_per_second": 1.0},
    }
    row = LINE | {"url": "/v1/chat/completions"}
    found = json.loads(output_line("batch", row, DIGEST, 200, body))
    assert (found["custom_id"], found["error"]) == ("a", None)
    response = found["response"]
    assert response["status_code"] == 200
    assert response["body"]["id"] == f"chatcmpl-{DIGEST[:32]}"
    assert response["body"]["usage"] == {"total_tokens": 3}
    assert response["body"]["created"] == 0
    assert set(response["body"]) == {"id", "created", "choices", "usage"}
    call = response["body"]["choices"][0]["message"]["tool_calls"][0]
    assert call == {"id": f"call_{DIGEST[:20]}0000"}


def test_a_simple_output_line_is_the_row_and_its_results() -> None:
    choices = [{"text": "山", "finish_reason": "stop"}]
    row = {"prompt": "x", "n": 1}
    assert json.loads(output_line("simple", row, DIGEST, 200, {"choices": choices})) == {
        "prompt": "x",
        "n": 1,
        "generated_text": "山",
        "finish_reason": "stop",
        "status": 200,
        "error": None,
    }
    error = {"error": {"message": "no"}}
    assert json.loads(output_line("simple", row, DIGEST, 400, error)) == {
        "prompt": "x",
        "n": 1,
        "generated_text": None,
        "finish_reason": None,
        "status": 400,
        "error": "no",
    }


def test_sampling_parameters_have_the_api_s_names_and_ranges() -> None:
    given = {"temperature": 0.0, "max_new_tokens": 3, "stop": ("。",)}
    assert body_fields(given) == {"temperature": 0.0, "max_tokens": 3, "stop": ("。",)}
    with pytest.raises(ApiError, match="temperature"):
        body_fields({"temperature": 3.0})
    samplers = {"dry_multiplier": 0.8, "dry_sequence_breakers": ("。",), "mirostat": 2}
    assert body_fields(samplers) == samplers
