"""Calls of functions: which one, with what, and what a client gets of them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from issun.runtime import Model
from issun.runtime.errors import ParameterError
from issun.server.calls import ready_calls
from issun.server.tools import Calling, Function
from tests.server.conftest import Running

QUESTION = [{"role": "user", "content": "フランスの首都は?"}]
NAME = "issun-embedded"
GREEDY = {"messages": QUESTION, "temperature": 0}


def tool(name: str, schema: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name} | ({} if schema is None else {"parameters": schema}) | more
    return {"type": "function", "function": function}


def object_of(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


CITY = object_of(city={"enum": ["パリ", "東京"]})
CAPITAL = tool("capital", CITY, description="国の首都を調べる")
SUM = tool("add", object_of(a={"enum": [1, 2]}, b={"enum": [3]}), description="足し算をする")
NOW = tool("now", description="今の時刻を調べる")


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def ask(server: Running, **body: Any) -> dict[str, Any]:
    found = server.post("/v1/chat/completions", GREEDY | body)
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


def call_of(choice: dict[str, Any]) -> tuple[str, Any]:
    """Name and arguments of the one call, which is all that the message has."""
    message = choice["message"]
    assert (message["role"], message["content"], message["refusal"]) == ("assistant", None, None)
    (call,) = message["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def test_a_named_function_is_called(server: Running) -> None:
    found = ask(server, tools=[SUM, CAPITAL, NOW], tool_choice=named("capital"))
    (choice,) = found["choices"]
    name, arguments = call_of(choice)
    assert name == "capital"
    assert arguments["city"] in ("パリ", "東京")
    assert choice["finish_reason"] == "stop"  # as OpenAI has it where the request names one


@pytest.mark.parametrize("choice", ["required", "any"])
def test_one_of_several_functions_is_called(server: Running, choice: str) -> None:
    body = {"tools": [SUM, CAPITAL], "tool_choice": choice, "temperature": 1.5, "seed": 3, "n": 6}
    found = ask(server, **body)
    called = [call_of(one) for one in found["choices"]]
    for name, arguments in called:
        assert arguments.keys() == {"capital": {"city"}, "add": {"a", "b"}}[name]
    assert {one["finish_reason"] for one in found["choices"]} == {"tool_calls"}
    assert len({one["message"]["tool_calls"][0]["id"] for one in found["choices"]}) == 6
    assert [call_of(one) for one in ask(server, **body)["choices"]] == called


def test_the_only_function_needs_no_choice(server: Running) -> None:
    found = ask(server, tools=[CAPITAL], tool_choice="required")
    assert call_of(found["choices"][0])[0] == "capital"
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    text_format = {"type": "json_schema", "json_schema": {"name": "capital", "schema": CITY}}
    formed = ask(server, response_format=text_format)
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [found["usage"][c] for c in counted] == [formed["usage"][c] for c in counted]
    call = found["choices"][0]["message"]["tool_calls"][0]["function"]
    assert call["arguments"] == formed["choices"][0]["message"]["content"]


def test_no_schema_is_in_the_prompt(server: Running) -> None:
    city = {"enum": ["パリ", "東京"], "description": "とても長い説明。" * 400}
    rest = {"examples": [{"city": "パリ"}] * 100, "$defs": {f"d{n}": CITY for n in range(50)}}
    tools = [tool("f", object_of(city=city) | rest, description="長い説明。" * 400)]
    found = ask(server, tools=tools, tool_choice=named("f"))
    assert found["usage"]["prompt_tokens"] < ask(server)["usage"]["prompt_tokens"] + 70


def test_what_the_choice_reads_and_writes_is_counted(server: Running) -> None:
    alone = ask(server, tools=[CAPITAL], tool_choice=named("capital"))["usage"]
    both = ask(server, tools=[CAPITAL, NOW], tool_choice="required")
    several = both["usage"]
    assert several["prompt_tokens"] > alone["prompt_tokens"] + 20
    if call_of(both["choices"][0])[0] == "capital":
        assert several["completion_tokens"] > alone["completion_tokens"]
    else:
        assert several["completion_tokens"] > 0
    assert several["total_tokens"] == several["prompt_tokens"] + several["completion_tokens"]


def test_many_functions_with_long_descriptions_fit(server: Running) -> None:
    tools = [tool(f"f{n}", CITY, description="長い説明です。" * 50) for n in range(60)]
    name, arguments = call_of(ask(server, tools=tools, tool_choice="required")["choices"][0])
    assert name in {f"f{n}" for n in range(60)}
    assert arguments.keys() == {"city"}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        {"properties": {}, "title": "Now", "$schema": "https://json-schema.org/draft/2020-12"},
    ],
)
def test_a_function_without_parameters_is_called_with_nothing(server: Running, schema: Any) -> None:
    found = ask(server, tools=[tool("now", schema)], tool_choice="required")
    assert call_of(found["choices"][0]) == ("now", {})
    assert found["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [CAPITAL]},
        {"tools": [CAPITAL], "tool_choice": "auto"},
        {"tools": [CAPITAL], "tool_choice": "none"},
        {"tools": [CAPITAL], "tool_choice": None, "parallel_tool_calls": True},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
        {
            "tools": [CAPITAL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [named("capital")]},
            },
        },
        {"functions": [CAPITAL["function"]]},
        {"functions": [CAPITAL["function"]], "function_call": "none"},
    ],
)
def test_what_demands_no_call_is_answered_in_text(server: Running, body: Any) -> None:
    (choice,) = ask(server, **body)["choices"]
    assert choice == ask(server)["choices"][0]
    assert "パリ" in choice["message"]["content"]


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("now")]}},
        {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "now"}],
        },
        {"type": "function", "name": "now"},
    ],
)
def test_other_spellings_of_a_choice(server: Running, choice: Any) -> None:
    found = ask(server, tools=[CAPITAL, NOW], tool_choice=choice, parallel_tool_calls=False)
    assert call_of(found["choices"][0]) == ("now", {})


def test_strict_and_loose_functions_are_followed_alike(server: Running) -> None:
    for strict in (True, False, None):
        tools = [tool("capital", CITY, strict=strict)]
        name, arguments = call_of(ask(server, tools=tools, tool_choice="required")["choices"][0])
        assert (name, list(arguments)) == ("capital", ["city"])


def test_the_older_spelling(server: Running) -> None:
    functions = [CAPITAL["function"], NOW["function"]]
    (choice,) = ask(server, functions=functions, function_call={"name": "capital"})["choices"]
    assert choice["message"]["content"] is None
    assert "tool_calls" not in choice["message"]
    call = choice["message"]["function_call"]
    assert call["name"] == "capital"
    assert json.loads(call["arguments"]).keys() == {"city"}
    assert choice["finish_reason"] == "stop"
    events = stream(server, functions=functions, function_call={"name": "now"})
    deltas = [e["choices"][0]["delta"] for e in events]
    assert deltas[0]["function_call"] == {"name": "now", "arguments": ""}
    assert deltas[1] == {"function_call": {"arguments": "{}"}}


def stream(server: Running, **body: Any) -> list[Any]:
    """The chunks of a streamed answer."""
    found = server.post("/v1/chat/completions", GREEDY | body | {"stream": True})
    lines = [line[6:] for line in found.text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_streamed_call_joins_to_the_whole(server: Running) -> None:
    body = {"tools": [CAPITAL, SUM], "tool_choice": "required", "n": 2}
    options = {"stream_options": {"include_usage": True}}
    *chunks, last = stream(server, **body, **options)
    whole = ask(server, **body)
    counted = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert [last["usage"][c] for c in counted] == [whole["usage"][c] for c in counted]
    for place, choice in enumerate(whole["choices"]):
        parts = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == place]
        first, *pieces, end = [part["delta"] for part in parts]
        assert (first["role"], first["content"]) == ("assistant", None)
        (call,) = first["tool_calls"]
        assert (call["index"], call["type"], call["function"]["arguments"]) == (0, "function", "")
        assert call["id"].startswith("call_")
        assert (end, parts[-1]["finish_reason"]) == ({}, "tool_calls")
        assert all(piece.keys() == {"tool_calls"} for piece in pieces)
        joined = "".join(piece["tool_calls"][0]["function"]["arguments"] for piece in pieces)
        assert (call["function"]["name"], json.loads(joined)) == call_of(choice)


class Capital(BaseModel):
    """国の首都を調べる"""

    city: Literal["パリ", "東京"]


def test_the_client_parses_calls(client: openai.OpenAI) -> None:
    tools = [openai.pydantic_function_tool(Capital)]
    asked: Any = {"model": NAME, "messages": QUESTION, "tools": tools, "temperature": 0}
    found = client.chat.completions.parse(**asked, tool_choice=named("Capital"))
    (call,) = found.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Capital)
    with client.chat.completions.stream(**asked, tool_choice="required") as streamed:
        events = [event for event in streamed if event.type != "chunk"]
        whole = streamed.get_final_completion()
    deltas = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    done = events[-1]
    assert done.type == "tool_calls.function.arguments.done"
    assert "".join(e.arguments_delta for e in deltas) == done.arguments == call.function.arguments
    assert isinstance(done.parsed_arguments, Capital)
    (again,) = whole.choices[0].message.tool_calls or []
    assert again.function.parsed_arguments == call.function.parsed_arguments


def test_a_loop_with_a_result_ends_in_text(client: openai.OpenAI) -> None:
    asked: Any = {"model": NAME, "tools": [CAPITAL], "temperature": 0}
    first = client.chat.completions.create(
        **asked, messages=QUESTION, tool_choice=named("capital")
    ).choices[0]
    (call,) = first.message.tool_calls or []
    history = [
        *QUESTION,
        first.message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": "フランスの首都はパリです。"},
    ]
    second = client.chat.completions.create(**asked, messages=history).choices[0]
    assert second.finish_reason == "stop"
    assert second.message.tool_calls is None
    assert "パリ" in (second.message.content or "")


def called(*names: str) -> list[dict[str, Any]]:
    """The question, with calls of functions and their results after it."""
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in names
    ]
    results = [{"role": "tool", "tool_call_id": name, "content": "不明"} for name in names]
    return [*QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}, *results]


@pytest.mark.parametrize(
    ("messages", "possible"),
    [
        (called("capital", "add"), {"now"}),
        (called("now", "add"), {"capital"}),
        ([*called("capital", "add"), *called("now")], {"capital", "add"}),
        (called("capital", "add", "now"), {"capital", "add", "now"}),
    ],
)
def test_what_was_called_is_not_called_again_before_the_others(
    server: Running, messages: Any, possible: set[str]
) -> None:
    body = {"tools": [CAPITAL, SUM, NOW], "tool_choice": "required", "n": 4, "temperature": 2}
    found = ask(server, messages=messages, seed=1, **body)
    assert {call_of(choice)[0] for choice in found["choices"]} <= possible


def test_a_call_that_is_cut_says_so(server: Running) -> None:
    long = tool("long", object_of(text={"type": "string", "pattern": "^[あ-ん]{12}$"}))
    found = ask(server, tools=[long], tool_choice="required", max_tokens=3)
    (choice,) = found["choices"]
    assert choice["finish_reason"] == "length"
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        call_of(choice)


def test_a_response_format_is_for_text_alone(server: Running) -> None:
    text_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, 2]}}}
    body = {"tools": [CAPITAL], "response_format": text_format}
    assert call_of(ask(server, **body, tool_choice="required")["choices"][0])[0] == "capital"
    assert ask(server, **body)["choices"][0]["message"]["content"] in ("1", "2")


BROKEN = {"type": "object", "properties": {"a": {"type": "strin"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [CAPITAL], "tool_choice": named("other")}, "tool_choice.function.name"),
        (
            {"tools": [CAPITAL], "tool_choice": {"type": "function", "name": 5}},
            "tool_choice.name",
        ),
        ({"tools": [CAPITAL], "tool_choice": "capital"}, "tool_choice"),
        ({"tools": [CAPITAL], "tool_choice": {"type": "custom", "custom": {}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("capital")}, "tool_choice.function.name"),
        ({"function_call": {"name": "capital"}}, "function_call.name"),
        (
            {
                "tools": [CAPITAL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [named("capital"), named("x")]},
                },
            },
            "tool_choice.allowed_tools.tools[1].function.name",
        ),
        (
            {"tools": [CAPITAL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
            "tool_choice.allowed_tools",
        ),
        ({"tools": [CAPITAL, {"type": "custom", "custom": {"name": "x"}}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [tool(" ")]}, "tools[0].function.name"),
        ({"tools": [NOW, NOW]}, "tools[1].function.name"),
        ({"tools": [tool("f", {"type": "string"})]}, "tools[0].function.parameters.type"),
        (
            {"tools": [NOW, tool("f", BROKEN)], "tool_choice": "required"},
            "tools[1].function.parameters",
        ),
        (
            {
                "functions": [{"name": "f", "parameters": BROKEN}],
                "function_call": {"name": "f"},
            },
            "functions[0].parameters",
        ),
        ({"tools": [NOW], "functions": [NOW["function"]]}, "functions"),
        ({"tools": [NOW], "tool_choice": "required", "choices": ["a", "b"]}, "choices"),
        ({"tools": [NOW], "tool_choice": "required", "regex": "a"}, "regex"),
        ({"tools": [CAPITAL], "tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_cannot_be_called_is_refused_by_its_path(
    server: Running, body: Any, param: str, streamed: bool
) -> None:
    found = server.post("/v1/chat/completions", GREEDY | body | {"stream": streamed})
    assert found.status_code == 400, found.text
    error = found.json()["error"]
    assert error["param"].startswith(param)
    assert error["message"].startswith(error["param"])


def test_names_that_the_vocabulary_lacks_are_chosen_by_number(
    embedded: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    possible = embedded.constraints.choices

    def only_numbers(texts: Sequence[str], **more: Any) -> Any:
        if not all(text.isdigit() for text in texts):
            raise ParameterError("no vocabulary has this")
        return possible(texts, **more)

    monkeypatch.setattr(embedded.constraints, "choices", only_numbers)
    functions = tuple(Function(name, "", CITY, "tools[0]") for name in "ab")
    ready = ready_calls(embedded, Calling(functions), room=100)
    assert ready.choice is not None
    assert ready.choice.texts == ["1", "2"]


def test_who_goes_away_ends_both_parts(server: Running) -> None:
    endless = tool("f", object_of(a={"type": "string"}))
    body = GREEDY | {"tools": [endless, NOW], "tool_choice": "required", "stream": True, "n": 4}
    url = server.url + "/v1/chat/completions"
    for tools in ([endless], [endless, tool("g", object_of(a={"type": "string"}))]):
        with httpx.stream("POST", url, json=body | {"tools": tools}, timeout=60) as found:
            next(found.iter_lines())
        end = time.monotonic() + 10
        while server.service.scheduler.running:
            assert time.monotonic() < end
            time.sleep(0.01)
