# /// script
# dependencies = ["smolagents[openai]>=1.20"]
# ///
"""smolagents' OpenAIModel, as https://huggingface.co/docs/smolagents shows it."""

from __future__ import annotations

import json
from typing import Any

from feature import (
    ANSWER,
    BASE_URL,
    CAPITAL,
    KEY,
    MODEL,
    QUESTION,
    ROLE,
    feature,
    raises,
    report,
)
from smolagents import (
    ChatMessage,
    CodeAgent,
    OpenAIModel,
    ToolCallingAgent,
    agglomerate_stream_deltas,
    tool,
)

model = OpenAIModel(model_id=MODEL, api_base=BASE_URL, api_key=KEY, temperature=0)
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"enum": ["ローマ", "パリ"]}},
    "required": ["capital"],
    "additionalProperties": False,
}
CONTEXT = "the agent's own prompt is longer than the model's context of 512 tokens"


@tool
def highest_mountain(country: str) -> str:
    """国で一番高い山を調べる。

    Args:
        country: 国
    """
    return ANSWER


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


@feature("chat")
def chat() -> str:
    text = model(user(QUESTION)).content
    assert ANSWER in text, text
    return text


@feature("stream", "generate_stream")
def stream() -> str:
    deltas = list(model.generate_stream(user(QUESTION)))
    text = "".join(delta.content or "" for delta in deltas)
    assert ANSWER in text and len(deltas) > 2, deltas
    return text


@feature("system")
def system() -> str:
    text = model([{"role": "system", "content": ROLE}, *user(QUESTION)]).content
    assert "なのだ" in text, text
    return text


@feature("history")
def history() -> str:
    said = model(user(QUESTION))
    text = model([*user(QUESTION), said, *user("最初の質問は何ですか?")]).content
    assert QUESTION in text, text
    return text


@feature("history", "ChatMessage")
def messages() -> str:
    text = model([ChatMessage.from_dict(user(QUESTION)[0])]).content
    assert ANSWER in text, text
    return text


@feature("sampling")
def sampling() -> str:
    text = model(user(QUESTION), stop_sequences=["富士"], max_tokens=30, seed=1).content
    assert text == "日本で一番高い山は", text
    return text


@feature("usage")
def usage() -> str:
    found = model(user(QUESTION)).token_usage
    assert found and found.output_tokens > 0, found
    return str(found)


@feature("JSON schema", "response_format")
def json_schema() -> str:
    asked: Any = {"type": "json_schema", "json_schema": {"name": "capital", "schema": SCHEMA}}
    found = json.loads(model(user(CAPITAL), response_format=asked).content)
    assert found["capital"] in ("ローマ", "パリ"), found
    return str(found)


@feature("tool required", "tools_to_call_from")
def tool_required() -> str:
    found = model(user(QUESTION), tools_to_call_from=[highest_mountain])
    (call,) = found.tool_calls
    assert call.function.name == "highest_mountain", call
    assert isinstance(json.loads(call.function.arguments)["country"], str), call
    return f"{call.function.name}({call.function.arguments})"


@feature("tool streamed", "tools_to_call_from")
def tool_streamed() -> str:
    deltas = list(model.generate_stream(user(QUESTION), tools_to_call_from=[highest_mountain]))
    (call,) = agglomerate_stream_deltas(deltas).tool_calls
    assert call.function.name == "highest_mountain", call
    assert isinstance(json.loads(call.function.arguments)["country"], str), call
    return f"{call.function.name}({call.function.arguments})"


@feature("tool result", "roles of an agent's memory")
def tool_result() -> str:
    said = {"role": "tool-call", "content": [{"type": "text", "text": "highest_mountain('日本')"}]}
    result = {"role": "tool-response", "content": [{"type": "text", "text": "富士山"}]}
    text = model([*user(QUESTION), said, result]).content
    assert text.strip(), text
    return text


@feature("tool auto", "ToolCallingAgent", limit=CONTEXT)
def agent() -> str:
    made = ToolCallingAgent(tools=[highest_mountain], model=model, max_steps=2, verbosity_level=0)
    text = str(made.run(QUESTION))
    assert ANSWER in text, text
    return text


@feature("tool auto", "CodeAgent", limit=CONTEXT)
def code_agent() -> str:
    made = CodeAgent(tools=[], model=model, max_steps=2, verbosity_level=0)
    text = str(made.run(QUESTION))
    assert ANSWER in text, text
    return text


@feature("clear errors", "another model")
def wrong_model() -> str:
    wrong = OpenAIModel(model_id="gpt-4o", api_base=BASE_URL, api_key=KEY)
    return raises(lambda: wrong(user(QUESTION)), "gpt-4o", MODEL)


if __name__ == "__main__":
    report("smolagents")
