"""`/v1/responses`, asked by the `openai` client and by hand."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.server.conftest import Running, embedded_server

QUESTION = "フランスの首都は?"
NAME = "issun-embedded"
ASKED: Any = {"model": NAME, "input": QUESTION, "temperature": 0}
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["パリ", "東京"]}},
    "required": ["city"],
    "additionalProperties": False,
}
CAPITAL = {"type": "function", "name": "capital", "description": "首都を調べる", "parameters": CITY}
NOW = {"type": "function", "name": "now", "parameters": None, "strict": None}


class Capital(BaseModel):
    """The answer to the question."""

    city: Literal["パリ", "東京"]


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def chat(server: Running, messages: Any, **more: Any) -> str:
    """The answer of the other dialect."""
    body = {"messages": messages, "temperature": 0, **more}
    found = server.post("/v1/chat/completions", body).json()
    text: str = found["choices"][0]["message"]["content"]
    return text


def test_a_text_is_answered(server: Running, client: openai.OpenAI) -> None:
    found = client.responses.create(**ASKED)
    assert found.output_text == chat(server, [{"role": "user", "content": QUESTION}])
    assert "パリ" in found.output_text
    assert (found.object, found.status, found.error) == ("response", "completed", None)
    assert found.id.startswith("resp_")
    assert found.to_dict()["store"] is False
    assert found.incomplete_details is None
    usage = found.usage
    assert usage is not None
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    (item,) = found.output
    assert item.type == "message"
    assert (item.role, item.status, item.content[0].type) == (
        *("assistant", "completed"),
        "output_text",
    )


SYSTEM = "語尾に「なのだ」を付けて話してください。"


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        (
            {"instructions": SYSTEM, "input": QUESTION},
            [("system", SYSTEM), ("user", QUESTION)],
        ),
        (
            {
                "input": [
                    {"role": "developer", "content": SYSTEM},
                    {"type": "message", "role": "user", "content": QUESTION},
                ]
            },
            [("developer", SYSTEM), ("user", QUESTION)],
        ),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_text", "text": "こんにちは"}]},
                    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
                    {
                        "type": "message",
                        "id": "msg_1",
                        "role": "assistant",
                        "status": "completed",
                        "content": [
                            {
                                "type": "output_text",
                                "text": "こんにちは。",
                                "annotations": [{"type": "url_citation", "url": "x"}],
                                "logprobs": [],
                            }
                        ],
                    },
                    {"role": "user", "content": QUESTION},
                ]
            },
            [("user", "こんにちは"), ("assistant", "こんにちは。"), ("user", QUESTION)],
        ),
    ],
)
def test_items_are_the_messages_of_the_other_dialect(
    server: Running, client: openai.OpenAI, asked: Any, messages: list[tuple[str, str]]
) -> None:
    found = client.responses.create(**ASKED | asked)
    expected = [{"role": role, "content": content} for role, content in messages]
    assert found.output_text == chat(server, expected)


def test_a_form_is_followed(client: openai.OpenAI) -> None:
    found = client.responses.parse(**ASKED, text_format=Capital)
    assert isinstance(found.output_parsed, Capital)
    free = client.responses.create(**ASKED, text={"format": {"type": "text"}, "verbosity": "low"})
    assert "パリ" in free.output_text
    loose = client.responses.create(
        **ASKED, text={"format": {"type": "json_object"}}, max_output_tokens=200
    )
    assert loose.status == "incomplete" or isinstance(json.loads(loose.output_text), dict)


def test_a_streamed_text_has_the_typed_events(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ASKED)
    events = list(client.responses.create(**ASKED, stream=True))
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(names[4:-4]) == {"output_text.delta"}
    assert names[-4:] == [
        *("output_text.done", "content_part.done"),
        *("output_item.done", "completed"),
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    joined = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert joined == whole.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == joined
    assert last.response.usage is not None
    assert whole.usage is not None
    assert last.response.usage.output_tokens == whole.usage.output_tokens
    ids = {event.item_id for event in events if hasattr(event, "item_id")}
    assert ids == {last.response.output[0].id}
    first = events[0]
    assert first.type == "response.created"
    assert (first.response.id, first.response.status) == (last.response.id, "in_progress")
    assert first.response.output == []


def test_the_client_s_own_stream_parses(client: openai.OpenAI) -> None:
    with client.responses.stream(**ASKED, text_format=Capital) as streamed:
        done = [event for event in streamed if event.type == "response.output_text.done"]
        assert isinstance(done[0].parsed, Capital)
        assert streamed.get_final_response().output_parsed == done[0].parsed


def test_events_are_named_and_none_is_of_the_other_dialect(server: Running) -> None:
    lines = server.post("/v1/responses", ASKED | {"stream": True}).text.splitlines()
    named = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert named == [event["type"] for event in data]
    assert named[-1] == "response.completed"


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "name": "capital"},
        {"type": "allowed_tools", "mode": "required", "tools": [CAPITAL]},
    ],
)
def test_a_function_is_called(client: openai.OpenAI, choice: Any) -> None:
    asked = ASKED | {"tools": [CAPITAL, NOW], "tool_choice": choice}
    (call,) = client.responses.create(**asked).output
    assert call.type == "function_call"
    assert (call.name, call.status) == ("capital", "completed")
    assert json.loads(call.arguments)["city"] in ("パリ", "東京")
    events = list(client.responses.create(**asked, stream=True))
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:3] == ["created", "in_progress", "output_item.added"]
    assert set(names[3:-3]) == {"function_call_arguments.delta"}
    assert names[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    kind = "response.function_call_arguments.delta"
    assert "".join(event.delta for event in events if event.type == kind) == call.arguments
    item = events[-2]
    assert item.type == "response.output_item.done"
    assert item.item.type == "function_call"
    assert (item.item.name, item.item.arguments) == (call.name, call.arguments)


def test_one_of_several_functions_is_called(client: openai.OpenAI) -> None:
    asked = ASKED | {"tools": [CAPITAL, NOW], "tool_choice": "required"}
    with client.responses.stream(**asked) as streamed:
        (call,) = streamed.get_final_response().output
    assert call.type == "function_call"
    arguments = json.loads(call.arguments)
    assert arguments == {} if call.name == "now" else arguments.keys() == {"city"}


def test_a_loop_with_a_result_ends_in_text(client: openai.OpenAI) -> None:
    asked = ASKED | {"tools": [CAPITAL]}
    first = client.responses.create(**asked, tool_choice="required")
    (call,) = first.output
    assert call.type == "function_call"
    text = "フランスの首都はパリです。"
    for output in (text, [{"type": "input_text", "text": text}]):
        result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
        history = [{"role": "user", "content": QUESTION}, call.to_dict(), result]
        second = client.responses.create(**asked | {"input": history})
        assert second.output[0].type == "message"
        assert "パリ" in second.output_text


def test_an_answer_that_is_cut_is_incomplete(client: openai.OpenAI) -> None:
    found = client.responses.create(**ASKED, max_output_tokens=2)
    assert found.status == "incomplete"
    assert found.incomplete_details is not None
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.output[0].type == "message"
    assert found.output[0].status == "incomplete"
    assert found.usage is not None
    assert found.usage.output_tokens == 2
    last = list(client.responses.create(**ASKED, max_output_tokens=2, stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == found.output_text


def test_an_answer_that_fails_in_the_stream_says_so() -> None:
    endless = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    tools = [{**CAPITAL, "parameters": endless}]
    with embedded_server(deadline=1e-6) as server:
        body = {"input": QUESTION, "tools": tools, "tool_choice": "required"}
        refused = server.post("/v1/responses", body)
        streamed = server.post("/v1/responses", body | {"stream": True})
    assert refused.status_code == 503
    last = json.loads(streamed.text.strip().splitlines()[-1].removeprefix("data: "))
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["error"]["message"] == refused.json()["error"]["message"]


def test_what_asks_for_nothing_is_taken(server: Running) -> None:
    nothing = {
        "store": False,
        "background": False,
        "stream": None,
        "previous_response_id": None,
        "conversation": None,
        "prompt": None,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "truncation": "auto",
        "top_logprobs": 0,
        "max_tool_calls": None,
        "user": "somebody",
        "safety_identifier": "x",
        "prompt_cache_key": "x",
    }
    found = server.post("/v1/responses", ASKED | nothing)
    assert found.status_code == 200, found.text
    answer = found.json()
    assert "パリ" in answer["output"][0]["content"][0]["text"]
    assert (answer["metadata"], answer["user"], answer["store"]) == ({"a": "b"}, "somebody", False)


BROKEN = {"type": "object", "properties": {"a": {"type": "strin"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tools": [CAPITAL, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "y"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        (
            {"tools": [{**CAPITAL, "parameters": BROKEN}], "tool_choice": "required"},
            "tools[0].parameters",
        ),
        ({"tools": [CAPITAL, CAPITAL]}, "tools[1].name"),
        ({"tools": [CAPITAL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"tools": [CAPITAL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": BROKEN}}},
            "text.format.schema",
        ),
        ({"truncation": "middle"}, "truncation"),
        ({"temperature": 5}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": ""}]}, "input[0]"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        (
            {
                "instructions": "x",
                "input": [
                    {"role": "user", "content": "x"},
                    {"type": "reasoning", "id": "x", "summary": []},
                    {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
                ],
            },
            "input[2].content[0].image_url",
        ),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "x", "output": [{"type": "x"}]},
                ]
            },
            "input[0].output[0].type",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": "x", "audio": "y"}]}, "input[0].audio"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_path(server: Running, body: Any, param: str) -> None:
    found = server.post("/v1/responses", {"input": QUESTION} | body)
    assert found.status_code == 400, found.text
    error = found.json()["error"]
    assert error["param"].startswith(param)
    assert error["message"].startswith(error["param"])


def test_a_history_that_is_cut_is_refused_where_that_is_asked_for(server: Running) -> None:
    turn = [
        {"role": "user", "content": "山の話。" * 40},
        {"role": "assistant", "content": "はい。"},
    ]
    body = {"input": turn * 10 + [{"role": "user", "content": QUESTION}], "temperature": 0}
    assert server.post("/v1/responses", body).json()["issun"]["dropped_turns"] > 0
    found = server.post("/v1/responses", body | {"truncation": "disabled"})
    assert found.status_code == 400
    error = found.json()["error"]
    assert (error["param"], error["code"]) == ("input", "context_length_exceeded")


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such"):
        client.responses.create(model="no-such", input="x")
