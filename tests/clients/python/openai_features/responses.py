"""The Responses API."""

from __future__ import annotations

from typing import Any

from feature import (
    ANSWER,
    CAPITAL,
    MODEL,
    QUESTION,
    ROLE,
    feature,
    raises,
)
from openai_features.common import (
    RESPONSES_TOOL,
    USER,
    Capital,
    client,
)


@feature("clear errors", "a tool that is no function")
def other_tool() -> str:
    search: Any = [{"type": "web_search"}]
    return raises(
        lambda: client.responses.create(model=MODEL, input="?", tools=search),
        "BadRequestError",
        "tools[0]",
    )


@feature("responses")
def responses() -> str:
    text = client.responses.create(model=MODEL, input=QUESTION, temperature=0).output_text
    assert ANSWER in text, text
    return text


@feature("responses", "instructions and history")
def responses_history() -> str:
    more: Any = [
        *USER,
        {"role": "assistant", "content": "富士山です。"},
        {"role": "user", "content": "世界で一番高い山は?"},
    ]
    found = client.responses.create(model=MODEL, instructions=ROLE, input=more, temperature=0)
    assert "なのだ" in found.output_text, found
    return found.output_text


@feature("responses", "output put back")
def responses_put_back() -> str:
    context: Any = [*USER]
    first = client.responses.create(model=MODEL, input=context, temperature=0)
    context += first.output
    context += [{"role": "user", "content": "最初の質問は何ですか?"}]
    text = client.responses.create(model=MODEL, input=context, temperature=0).output_text
    assert QUESTION in text, text
    return text


@feature("responses", "stream")
def responses_stream() -> str:
    kinds, text = [], ""
    for event in client.responses.create(model=MODEL, input=QUESTION, stream=True, temperature=0):
        kinds.append(event.type)
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert ANSWER in text, text
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    return text


@feature("responses", "stream helper")
def responses_stream_helper() -> str:
    with client.responses.stream(
        model=MODEL, input=CAPITAL, text_format=Capital, temperature=0
    ) as events:
        for _ in events:
            pass
        found = events.get_final_response().output_parsed
    assert isinstance(found, Capital), found
    return str(found)


@feature("responses", "parse")
def responses_parse() -> str:
    found = client.responses.parse(model=MODEL, input=CAPITAL, text_format=Capital, temperature=0)
    assert isinstance(found.output_parsed, Capital), found
    return str(found.output_parsed)


@feature("responses", "tool")
def responses_tool() -> str:
    found = client.responses.create(
        model=MODEL,
        input=CAPITAL,
        tools=[RESPONSES_TOOL],
        tool_choice={"type": "function", "name": "capital"},
        temperature=0,
    )
    (call,) = [item for item in found.output if item.type == "function_call"]
    Capital.model_validate_json(call.arguments)
    return f"{call.name}({call.arguments})"


@feature("responses", "tool, stream")
def responses_tool_stream() -> str:
    events = client.responses.create(
        model=MODEL,
        input=CAPITAL,
        tools=[RESPONSES_TOOL],
        tool_choice="required",
        temperature=0,
        stream=True,
    )
    text = ""
    for event in events:
        text += event.delta if event.type == "response.function_call_arguments.delta" else ""
    assert event.type == "response.completed", event
    return str(Capital.model_validate_json(text))


@feature("responses", "cut by max_output_tokens")
def responses_cut() -> str:
    found = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=3)
    assert found.status == "incomplete", found
    assert found.incomplete_details.reason == "max_output_tokens", found
    return found.output_text


@feature("responses", "a reasoning item put back")
def responses_reasoning() -> str:
    context: Any = [
        {"role": "user", "content": CAPITAL},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": [{"type": "output_text", "text": "パリです。"}]},
        *USER,
    ]
    text = client.responses.create(model=MODEL, input=context, temperature=0).output_text
    assert ANSWER in text, text
    return text


@feature("responses", "tool result")
def responses_tool_result() -> str:
    context: Any = [
        *USER,
        {"type": "function_call", "call_id": "c", "name": "highest", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "富士山"},
    ]
    found = client.responses.create(
        model=MODEL, input=context, tools=[RESPONSES_TOOL], temperature=0
    )
    assert found.output_text.strip(), found
    return found.output_text


@feature("clear errors", "previous_response_id")
def previous_response() -> str:
    def ask_again() -> Any:
        return client.responses.create(model=MODEL, input="?", previous_response_id="resp_1")

    return raises(ask_again, "BadRequestError", "previous_response_id")
