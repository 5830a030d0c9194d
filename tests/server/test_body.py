"""Bodies: what asks for nothing is taken, what is not known is refused by its path."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from issun.server.body import parse
from issun.server.errors import ApiError
from issun.server.types import Body, ChatRequest, CompletionRequest, TokenizeRequest

USER = {"role": "user", "content": "山は?"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(**fields: Any) -> ChatRequest:
    return parse(json.dumps({"messages": [USER]} | fields).encode(), ChatRequest)


def answered(**fields: Any) -> dict[str, Any]:
    """Messages with an assistant's in the middle that has `fields`."""
    return {"messages": [USER, {"role": "assistant", "content": "富士山"} | fields, USER]}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "tool_choice": "none", "parallel_tool_calls": False},
        {"tools": None, "functions": [], "function_call": "none"},
        {"metadata": None, "store": False, "service_tier": "auto", "user": "x"},
        {"metadata": {"run": "1"}, "safety_identifier": "x", "prompt_cache_key": "x"},
        {"prompt_cache_retention": "24h", "modalities": ["text"], "prediction": None},
        {"prediction": {"type": "content", "content": "富士山"}},
        {"audio": None, "web_search_options": None, "logit_bias": {}, "stop": []},
        {"stop": None, "stop_token_ids": [], "bad_words": [], "extra_body": {}},
        {"reasoning_effort": "high", "verbosity": "low", "enable_thinking": True},
        {"chat_template_kwargs": {}, "chat_template": None},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"stream_options": None, "response_format": None, "progress": None},
        {"stream_options": {"include_usage": None, "include_obfuscation": False}},
        {"best_of": 1, "use_beam_search": False, "length_penalty": 1.0, "mirostat": 0},
        {"repeat_penalty": 1.0, "repeat_last_n": 64, "tfs_z": 1, "top_a": 0},
        {"skip_special_tokens": True, "include_stop_str_in_output": False, "echo": False},
        {"dry_multiplier": 0.0, "dry_base": 1.75, "dry_sequence_breakers": ["\n"]},
        {"unheard_of": None, "also": False, "and": "", "this": [], "too": {}},
        # What is empty in another language's way, and numbers of languages with one kind.
        {"logit_bias": [], "tools": False, "response_format": "", "logprobs": None},
        {"n": 1.0, "max_tokens": 5.0, "top_k": -1, "seed": 3.0},
        answered(annotations=[], audio=None, function_call=None, tool_calls=None, refusal=None),
        answered(reasoning_content="考え中", reasoning="x", thinking="x", id="msg_1"),
        answered(provider_specific_fields={"x": 1}, images=[], finish_reason="stop"),
        answered(tool_calls=[CALL | {"index": 0}]),
        answered(parsed={"a": 1}),
        answered(tool_calls=[CALL | {"function": CALL["function"] | {"parsed_arguments": {}}}]),
        answered(
            tool_calls=[CALL | {"function": CALL["function"] | {"parsed_arguments": {"a": 1}}}]
        ),
        answered(content=[{"type": "text", "text": "x", "index": 0, "annotations": []}]),
        answered(content=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]),
        {"tools": [{"type": "function", "function": {"name": "f", "strict": None}}]},
    ],
)
def test_what_asks_for_nothing_is_taken(fields: dict[str, Any]) -> None:
    found = chat(**fields)
    assert isinstance(found.messages[0].content, str)
    assert found.progress is False


def test_empty_values_become_the_defaults() -> None:
    found = chat(logit_bias=[], progress=None, response_format={}, n=2.0, stop="", logprobs=False)
    assert (found.logit_bias, found.progress, found.n, found.stop) == (None, False, 2, "")
    assert found.response_format is not None
    assert found.response_format.type == "text"
    completion = parse(b'{"prompt": "", "logprobs": false}', CompletionRequest)
    assert (completion.prompt, completion.logprobs) == ("", None)
    assert parse(b'{"prompt": ""}', TokenizeRequest).prompt == ""


@pytest.mark.parametrize(
    ("fields", "place", "part"),
    [
        ({"store": True}, "store", "true is not supported"),
        ({"modalities": ["text", "audio"]}, "modalities", '["text","audio"]'),
        ({"audio": {"voice": "x"}}, "audio", "is not supported"),
        ({"web_search_options": {}}, "web_search_options", "{} is not supported"),
        ({"web_search_options": {"x": 1}}, "web_search_options", "is not supported"),
        ({"temprature": 0}, "temprature", "Did you mean temperature?"),
        ({"max_token": 5}, "max_token", "Did you mean max_tokens?"),
        ({"repeat_penalty": 1.1}, "repeat_penalty", "Use repetition_penalty."),
        ({"num_predict": 5}, "num_predict", "Use max_tokens."),
        ({"stop_token_ids": [3]}, "stop_token_ids", "Use stop."),
        ({"best_of": 4}, "best_of", "Use n."),
        ({"grammar": 'root ::= "a"'}, "grammar", "Use regex, choices or response_format."),
        ({"skip_special_tokens": False}, "skip_special_tokens", "false is not supported"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output", "not supported"),
        ({"extra_body": {"top_k": 5}}, "extra_body", "at the top of the body"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", '{"x":1}'),
        ({"stream_options": {"x": 1}}, "stream_options.x", "1 is not supported"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x", "1 is not"),
        ({"response_format": {"properties": {"a": {}}}}, "response_format.properties", "schema"),
        (
            {"response_format": {"type": "json", "value": {"a": 1}}},
            "response_format.value",
            "schema",
        ),
        (
            {"response_format": {"type": "regex", "pattern": "a"}},
            "response_format.pattern",
            "regex",
        ),
        ({"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar", "Use regex"),
        (answered(annotations=[{"type": "url"}]), "messages[1].annotations", '[{"type":"url"}]'),
        (answered(audio={"id": "x"}), "messages[1].audio", '{"id":"x"}'),
        (answered(images=["x"]), "messages[1].images", '["x"]'),
        (
            answered(content=["x", {"type": "text", "text": "x", "video_url": "y"}]),
            "messages[1].content[1].video_url",
            '"y" is not supported',
        ),
        (
            answered(tool_calls=[CALL, {"function": {"name": "f", "x": 1}}]),
            "messages[1].tool_calls[1].function.x",
            "1 is not supported",
        ),
        ({"tools": [{"function": {"name": "f", "x": 1}}]}, "tools[0].function.x", "1 is not"),
        # Of the wrong kind or size.
        ({"temperature": "hot"}, "temperature", '"hot"'),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"n": 1.5}, "n", "1.5"),
        ({"n": 129}, "n", "129"),
        ({"stop": [""]}, "stop[0]", "length"),
        (
            {"messages": [USER, {"role": "user", "content": 5}]},
            "messages[1].content",
            "5: Expected",
        ),
        ({"messages": [USER, {"content": "x"}]}, "messages[1]", "role"),
        ({"messages": None}, "messages", "null"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_path(
    fields: dict[str, Any], place: str, part: str
) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.param == place
    assert str(caught.value).startswith(f"{place}: ")
    assert part in str(caught.value)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\xff", b"[" * 100_000, b'"\\ud800"'])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError, match="not JSON"):
        parse(body, ChatRequest)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError, match="Expected `object`"):
        parse(body, ChatRequest)


def test_a_name_of_any_length_makes_a_short_error() -> None:
    with pytest.raises(ApiError) as caught:
        chat(**{"x" * 10_000: "y" * 10_000})
    assert len(str(caught.value)) < 400
    assert caught.value.param == "x" * 100


def test_ignored_fields_are_not_fields() -> None:
    def kinds(kind: type[Body]) -> list[type[Body]]:
        return [kind, *(found for below in kind.__subclasses__() for found in kinds(below))]

    for kind in kinds(Body):
        assert not set(kind.ignored) & set(kind.__struct_fields__), kind


def test_a_message_of_the_client_is_put_back(dumped: dict[str, Any]) -> None:
    assert dumped["refusal"] is None
    assert chat(messages=[USER, dumped, USER]).messages[1].content == "富士山です。"


@pytest.fixture
def dumped() -> dict[str, Any]:
    """What the openai client keeps of an answer."""
    found = openai.types.chat.ChatCompletionMessage(role="assistant", content="富士山です。")
    return found.model_dump()
