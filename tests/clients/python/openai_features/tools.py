"""Functions that the answer must call."""

from __future__ import annotations

import json
from typing import Any

import openai
from feature import (
    ANSWER,
    MODEL,
    PARIS,
    feature,
    raises,
)
from openai_features.common import (
    FRANCE,
    NAMED,
    OTHER,
    TOOL,
    USER,
    Capital,
    ask,
    client,
)


def called(choice: Any, name: str = "capital") -> str:
    (call,) = choice.message.tool_calls
    assert choice.finish_reason in ("stop", "tool_calls"), choice
    assert call.type == "function" and call.id and call.function.name == name, call
    Capital.model_validate_json(call.function.arguments)
    return f"{name}({call.function.arguments})"


@feature("tool named")
def tool_named() -> str:
    return called(ask(FRANCE, tools=[OTHER, TOOL], tool_choice=NAMED).choices[0])


@feature("tool named", "right answer")
def tool_right() -> str:
    found = called(ask(FRANCE, tools=[TOOL], tool_choice=NAMED).choices[0])
    assert PARIS in found, found
    return found


@feature("tool required")
def tool_required() -> str:
    return called(ask(FRANCE, tools=[TOOL], tool_choice="required").choices[0])


@feature("tool required", "several tools")
def tool_required_of_two() -> str:
    choice = ask(FRANCE, tools=[TOOL, OTHER], tool_choice="required").choices[0]
    (call,) = choice.message.tool_calls
    assert call.function.name in ("capital", "population"), call
    return f"{call.function.name}({json.loads(call.function.arguments)})"


@feature("tool required", "a function without parameters")
def tool_without_parameters() -> str:
    bare: Any = {"type": "function", "function": {"name": "now"}}
    (call,) = ask(FRANCE, tools=[bare], tool_choice="required").choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {}, call
    return str(call.function)


@feature("tool required", "allowed_tools")
def tool_allowed() -> str:
    allowed: Any = {"mode": "required", "tools": [NAMED]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    return called(ask(FRANCE, tools=[OTHER, TOOL], tool_choice=choice).choices[0])


@feature("tool required", "n=2")
def tool_several() -> str:
    found = ask(FRANCE, tools=[TOOL], tool_choice="required", n=2)
    return " ".join(called(choice) for choice in found.choices)


@feature("tool named", "functions, as it was before tools")
def functions() -> str:
    function = TOOL["function"]
    choice = ask(FRANCE, functions=[function], function_call={"name": "capital"}).choices[0]
    assert choice.finish_reason in ("stop", "function_call"), choice
    return str(Capital.model_validate_json(choice.message.function_call.arguments))


@feature("tool required", "parse")
def tool_parsed() -> str:
    done = client.chat.completions.parse(
        model=MODEL,
        messages=FRANCE,
        tools=[openai.pydantic_function_tool(Capital)],
        tool_choice="required",
        temperature=0,
    )
    (call,) = done.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Capital), call
    return str(call.function.parsed_arguments)


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    return called(ask(FRANCE, tools=[TOOL]).choices[0])


@feature("tool auto", "answered in text")
def tool_auto_text() -> str:
    text = ask(tools=[TOOL], tool_choice="auto").choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("tool streamed")
def tool_streamed() -> str:
    name, arguments, reason = "", "", None
    for chunk in ask(FRANCE, tools=[TOOL], tool_choice=NAMED, stream=True):
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                assert call.index == 0, call
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "capital" and reason in ("stop", "tool_calls"), (name, reason)
    Capital.model_validate_json(arguments)
    return f"{name}({arguments})"


@feature("tool streamed", "chat.completions.stream")
def tool_streamed_helper() -> str:
    with client.chat.completions.stream(
        model=MODEL,
        messages=FRANCE,
        temperature=0,
        tools=[openai.pydantic_function_tool(Capital)],
        tool_choice="required",
    ) as events:
        (call,) = events.get_final_completion().choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Capital), call
    return str(call.function.parsed_arguments)


@feature("tool result")
def tool_result() -> str:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "highest", "arguments": '{"country": "日本"}'},
    }
    text = (
        ask(
            [
                *USER,
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "富士山"},
            ],
            tools=[TOOL],
        )
        .choices[0]
        .message.content
    )
    assert text.strip(), text
    return text


@feature("clear errors", "a function that is not there")
def missing_function() -> str:
    other = {"type": "function", "function": {"name": "other"}}
    return raises(
        lambda: ask(tools=[TOOL], tool_choice=other), "BadRequestError", "tool_choice", "capital"
    )
