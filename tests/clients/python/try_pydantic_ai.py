# /// script
# dependencies = ["pydantic-ai-slim[openai]>=2"]
# ///
"""Pydantic AI, as https://ai.pydantic.dev shows it."""

from __future__ import annotations

from typing import Any, Literal

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
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=BASE_URL, api_key=KEY)
model = OpenAIChatModel(MODEL, provider=provider)
responses_model = OpenAIResponsesModel(MODEL, provider=provider)
SETTINGS: Any = {"temperature": 0}


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


class Mountain(BaseModel):
    mountain: Literal["富士山", "北岳"]
    is_high: bool


def agent(output: Any = str, **more: Any) -> Any:
    used = more.pop("model", model)
    return Agent(used, output_type=output, model_settings=SETTINGS, retries=0, **more)


@feature("chat")
def chat() -> str:
    text = agent().run_sync(QUESTION).output
    assert ANSWER in text, text
    return text


@feature("stream")
async def stream() -> str:
    async with agent().run_stream(QUESTION) as answer:
        texts = [text async for text in answer.stream_text(delta=True, debounce_by=None)]
    assert ANSWER in "".join(texts) and len(texts) > 2, texts
    return "".join(texts)


@feature("async")
async def asynchronous() -> str:
    text = (await agent().run(QUESTION)).output
    assert ANSWER in text, text
    return text


@feature("system", "instructions")
def instructions() -> str:
    text = agent(instructions=ROLE).run_sync(QUESTION).output
    assert "なのだ" in text, text
    return text


@feature("system", "system_prompt")
def system_prompt() -> str:
    text = agent(system_prompt=ROLE).run_sync(QUESTION).output
    assert "なのだ" in text, text
    return text


@feature("history")
def history() -> str:
    asking = agent()
    said = asking.run_sync(QUESTION).all_messages()
    text = asking.run_sync("最初の質問は何ですか?", message_history=said).output
    assert QUESTION in text, text
    return text


@feature("sampling")
def sampling() -> str:
    settings: Any = {"max_tokens": 30, "seed": 1, "top_p": 0.5, "stop_sequences": ["富士"]}
    found = Agent(model, model_settings=settings).run_sync(QUESTION)
    assert found.output == "日本で一番高い山は", found
    return found.output


@feature("usage")
def usage() -> str:
    found = agent().run_sync(QUESTION)
    assert found.usage.output_tokens > 0, found
    return str(found.usage)


@feature("tool required", "output_type=Model")
def output_type() -> str:
    found = agent(Capital).run_sync(CAPITAL).output
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool required", "output_type=[Model, Other]")
def union() -> str:
    found = agent([Capital, Mountain]).run_sync(CAPITAL).output
    assert isinstance(found, (Capital, Mountain)), found
    return str(found)


@feature("tool required", "output_type=bool")
def simple_type() -> str:
    found = agent(bool).run_sync("富士山は日本の山ですか?").output
    assert isinstance(found, bool), found
    return str(found)


@feature("tool required", "ToolOutput with a name")
def tool_output() -> str:
    named = ToolOutput(Capital, name="capital", description="首都を答える。", strict=True)
    found = agent(named).run_sync(CAPITAL).output
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool streamed", "output_type=Model")
async def output_stream() -> str:
    async with agent(Capital).run_stream(CAPITAL) as answer:
        *_, found = [one async for one in answer.stream_output(debounce_by=None)]
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "NativeOutput")
def native() -> str:
    found = agent(NativeOutput(Capital)).run_sync(CAPITAL).output
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "NativeOutput of two types")
def native_union() -> str:
    found = agent(NativeOutput([Capital, Mountain])).run_sync(CAPITAL).output
    assert isinstance(found, (Capital, Mountain)), found
    return str(found)


@feature("JSON schema", "NativeOutput, stream")
async def native_stream() -> str:
    async with agent(NativeOutput(Capital)).run_stream(CAPITAL) as answer:
        *_, found = [one async for one in answer.stream_output(debounce_by=None)]
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON object", "PromptedOutput", limit="the schema is in the prompt alone: any JSON fits")
def prompted() -> str:
    found = agent(PromptedOutput(Capital, template="{schema}")).run_sync(CAPITAL).output
    assert isinstance(found, Capital), found
    return str(found)


@feature("chat", "TextOutput")
def text_output() -> str:
    def shout(text: str) -> list[str]:
        return text.split("は")

    found = agent(TextOutput(shout)).run_sync(QUESTION).output
    assert len(found) > 1, found
    return str(found)


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    calls: list[str] = []
    asking = agent()

    @asking.tool_plain
    def highest_mountain(country: str) -> str:
        """国で一番高い山を調べる。"""
        calls.append(country)
        return ANSWER

    text = asking.run_sync(QUESTION).output
    assert calls, text
    return f"{calls} {text}"


@feature("tool auto", "agent that may answer at once")
def tool_auto_text() -> str:
    asking = agent()

    @asking.tool_plain
    def highest_mountain(country: str) -> str:
        """国で一番高い山を調べる。"""
        return ANSWER

    text = asking.run_sync(QUESTION).output
    assert ANSWER in text, text
    return text


@feature("tool result", "a call in the history")
def tool_result() -> str:
    said = agent(Capital).run_sync(CAPITAL).all_messages()
    text = agent().run_sync(QUESTION, message_history=said).output
    assert ANSWER in text, text
    return text


@feature("responses")
def responses() -> str:
    text = agent(model=responses_model, instructions=ROLE).run_sync(QUESTION).output
    assert "なのだ" in text, text
    return text


@feature("responses", "output_type=Model")
def responses_tool() -> str:
    found = agent(Capital, model=responses_model).run_sync(CAPITAL).output
    assert isinstance(found, Capital), found
    return str(found)


@feature("responses", "NativeOutput")
def responses_native() -> str:
    found = agent(NativeOutput(Capital), model=responses_model).run_sync(CAPITAL).output
    assert isinstance(found, Capital), found
    return str(found)


@feature("responses", "stream")
async def responses_stream() -> str:
    async with agent(model=responses_model).run_stream(QUESTION) as answer:
        texts = [text async for text in answer.stream_text(delta=True, debounce_by=None)]
    assert ANSWER in "".join(texts), texts
    return "".join(texts)


@feature("clear errors", "another model")
def wrong_model() -> str:
    wrong = agent(model=OpenAIChatModel("gpt-4o", provider=provider))
    return raises(lambda: wrong.run_sync(QUESTION), "gpt-4o", MODEL)


if __name__ == "__main__":
    report("pydantic-ai-slim")
