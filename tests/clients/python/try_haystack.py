# /// script
# dependencies = ["haystack-ai>=2.20"]
# ///
"""Haystack's OpenAI generators, as https://docs.haystack.deepset.ai shows them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from feature import (
    ANSWER,
    BASE_URL,
    CAPITAL,
    EMBEDDINGS,
    KEY,
    MODEL,
    QUESTION,
    ROLE,
    feature,
    raises,
    report,
)
from haystack import Pipeline
from haystack.components.agents import Agent
from haystack.components.builders import ChatPromptBuilder
from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret
from pydantic import BaseModel

WHERE: Any = {"api_key": Secret.from_token(KEY), "model": MODEL, "api_base_url": BASE_URL}


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


@tool
def highest_mountain(country: Annotated[Literal["日本", "中国"], "国"]) -> str:
    """国で一番高い山を調べる。"""
    return ANSWER


def ask(messages: Any, component: Any = OpenAIChatGenerator, **more: Any) -> Any:
    settings = {"temperature": 0, **more.pop("settings", {})}
    made = component(**WHERE, max_retries=0, generation_kwargs=settings, **more)
    (reply,) = made.run(messages)["replies"]
    return reply


USER = [ChatMessage.from_user(QUESTION)]
FRANCE = [ChatMessage.from_user(CAPITAL)]


@feature("chat")
def chat() -> str:
    text = ask(USER).text
    assert ANSWER in text, text
    return text


@feature("chat", "pipeline")
def pipeline() -> str:
    made = Pipeline()
    template = [ChatMessage.from_system(ROLE), ChatMessage.from_user("{{question}}")]
    made.add_component(
        "prompt", ChatPromptBuilder(template=template, required_variables=["question"])
    )
    made.add_component("llm", OpenAIChatGenerator(**WHERE))
    made.connect("prompt", "llm")
    text = made.run({"prompt": {"question": QUESTION}})["llm"]["replies"][0].text
    assert "なのだ" in text, text
    return text


@feature("stream")
def stream() -> str:
    texts: list[str] = []
    reply = ask(USER, streaming_callback=lambda chunk: texts.append(chunk.content))
    assert ANSWER in reply.text and len(texts) > 2, texts
    return reply.text


@feature("async")
async def asynchronous() -> str:
    found = await OpenAIChatGenerator(**WHERE).run_async(USER)
    text = found["replies"][0].text
    assert ANSWER in text, text
    return text


@feature("system")
def system() -> str:
    text = ask([ChatMessage.from_system(ROLE), *USER]).text
    assert "なのだ" in text, text
    return text


@feature("history")
def history() -> str:
    text = ask([*USER, ask(USER), ChatMessage.from_user("最初の質問は何ですか?")]).text
    assert QUESTION in text, text
    return text


@feature("sampling")
def sampling() -> str:
    text = ask(USER, settings={"stop": ["富士"], "seed": 1, "max_completion_tokens": 30}).text
    assert text == "日本で一番高い山は", text
    return text


@feature("usage")
def usage() -> str:
    found = ask(USER).meta["usage"]
    assert found["completion_tokens"] > 0, found
    return str(found)


@feature("usage", "stream")
def stream_usage() -> str:
    reply = ask(
        USER,
        streaming_callback=lambda chunk: None,
        settings={"stream_options": {"include_usage": True}},
    )
    assert reply.meta["usage"]["completion_tokens"] > 0, reply.meta
    return str(reply.meta["usage"])


@feature("logprobs")
def logprobs() -> str:
    found = ask(USER, settings={"logprobs": True}).meta["logprobs"]
    assert found, found
    return str(found)[:80]


@feature("JSON object")
def json_object() -> str:
    text = ask(FRANCE, settings={"response_format": {"type": "json_object"}}).text
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema", "response_format=Model")
def json_schema() -> str:
    text = ask(FRANCE, settings={"response_format": Capital}).text
    return str(Capital.model_validate_json(text))


@feature("JSON schema", "stream")
def json_schema_stream() -> str:
    schema = {"name": "capital", "strict": True, "schema": Capital.model_json_schema()}
    text = ask(
        FRANCE,
        streaming_callback=lambda chunk: None,
        settings={"response_format": {"type": "json_schema", "json_schema": schema}},
    ).text
    return str(Capital.model_validate_json(text))


@feature("tool named")
def tool_named() -> str:
    named = {"type": "function", "function": {"name": "highest_mountain"}}
    reply = ask(USER, tools=[highest_mountain], settings={"tool_choice": named})
    (call,) = reply.tool_calls
    return f"{call.tool_name}({highest_mountain.invoke(**call.arguments) and call.arguments})"


@feature("tool required")
def tool_required() -> str:
    reply = ask(
        USER, tools=[highest_mountain], tools_strict=True, settings={"tool_choice": "required"}
    )
    (call,) = reply.tool_calls
    return f"{call.tool_name}({highest_mountain.invoke(**call.arguments) and call.arguments})"


@feature("tool streamed")
def tool_streamed() -> str:
    reply = ask(
        USER,
        tools=[highest_mountain],
        settings={"tool_choice": "required"},
        streaming_callback=lambda chunk: None,
    )
    (call,) = reply.tool_calls
    return f"{call.tool_name}({highest_mountain.invoke(**call.arguments) and call.arguments})"


@feature("tool result")
def tool_result() -> str:
    said = ask(USER, tools=[highest_mountain], settings={"tool_choice": "required"})
    result = ChatMessage.from_tool(ANSWER, origin=said.tool_calls[0])
    text = ask([*USER, said, result], tools=[highest_mountain]).text
    assert text.strip(), text
    return text


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    reply = ask(USER, tools=[highest_mountain])
    assert reply.tool_calls, reply.text
    return str(reply.tool_calls)


@feature("tool auto", "Agent that may answer at once")
def agent() -> str:
    made = Agent(chat_generator=OpenAIChatGenerator(**WHERE), tools=[highest_mountain])
    text = made.run(messages=USER)["last_message"].text
    assert ANSWER in text, text
    return text


@feature("responses")
def responses() -> str:
    text = ask(USER, OpenAIResponsesChatGenerator).text
    assert ANSWER in text, text
    return text


@feature("responses", "text_format")
def responses_format() -> str:
    text = ask(FRANCE, OpenAIResponsesChatGenerator, settings={"text_format": Capital}).text
    return str(Capital.model_validate_json(text))


@feature("clear errors", "embeddings")
def embeddings() -> str:
    made = OpenAITextEmbedder(**WHERE, max_retries=0)
    return raises(lambda: made.run("富士山"), "NotFoundError", EMBEDDINGS)


@feature("clear errors", "another model")
def wrong_model() -> str:
    made = OpenAIChatGenerator(**WHERE | {"model": "gpt-4o"}, max_retries=0)
    return raises(lambda: made.run(USER), "gpt-4o", MODEL)


if __name__ == "__main__":
    report("haystack-ai")
