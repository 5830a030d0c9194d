# /// script
# dependencies = ["semantic-kernel>=1.30"]
# ///
"""Semantic Kernel's OpenAIChatCompletion with a client of its own address, as its samples do."""

from __future__ import annotations

import json
from typing import Any, Literal

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
from openai import AsyncOpenAI
from pydantic import BaseModel
from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
    OpenAITextCompletion,
    OpenAITextEmbedding,
    OpenAITextPromptExecutionSettings,
)
from semantic_kernel.contents import ChatHistory, FunctionCallContent
from semantic_kernel.functions import KernelArguments, kernel_function


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


class Places:
    """A plugin."""

    @kernel_function(name="highest_mountain", description="国で一番高い山を調べる。")
    def highest_mountain(self, country: str) -> str:
        return ANSWER


def own_client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)


def service(model: str = MODEL) -> OpenAIChatCompletion:
    return OpenAIChatCompletion(ai_model_id=model, async_client=own_client(), service_id="issun")


def settings(**more: Any) -> OpenAIChatPromptExecutionSettings:
    return OpenAIChatPromptExecutionSettings(service_id="issun", temperature=0, **more)


def history_of(*texts: str, system: str | None = None) -> ChatHistory:
    found = ChatHistory(system_message=system) if system else ChatHistory()
    for place, text in enumerate(texts):
        (found.add_assistant_message if place % 2 else found.add_user_message)(text)
    return found


def kernel_of() -> Kernel:
    kernel = Kernel()
    kernel.add_service(service())
    kernel.add_plugin(Places(), plugin_name="places")
    return kernel


async def ask(history: ChatHistory, used: Any = None, kernel: Any = None) -> Any:
    return await service().get_chat_message_content(history, used or settings(), kernel=kernel)


@feature("chat")
async def chat() -> str:
    text = str(await ask(history_of(QUESTION)))
    assert ANSWER in text, text
    return text


@feature("chat", "invoke_prompt")
async def invoke_prompt() -> str:
    arguments = KernelArguments(settings(), question=QUESTION)
    text = str(await kernel_of().invoke_prompt("{{$question}}", arguments=arguments))
    assert ANSWER in text, text
    return text


@feature("chat", "ChatCompletionAgent")
async def agent() -> str:
    made = ChatCompletionAgent(service=service(), name="issun", instructions=ROLE)
    text = str((await made.get_response(messages=QUESTION)).message)
    assert "なのだ" in text, text
    return text


@feature("stream")
async def stream() -> str:
    chunks = service().get_streaming_chat_message_content(history_of(QUESTION), settings())
    texts = [str(chunk) async for chunk in chunks if chunk]
    assert ANSWER in "".join(texts) and len(texts) > 2, texts
    return "".join(texts)


@feature("system")
async def system() -> str:
    text = str(await ask(history_of(QUESTION, system=ROLE)))
    assert "なのだ" in text, text
    return text


@feature("history")
async def history() -> str:
    said = history_of(QUESTION)
    said.add_message(await ask(said))
    said.add_user_message("最初の質問は何ですか?")
    text = str(await ask(said))
    assert QUESTION in text, text
    return text


@feature("sampling")
async def sampling() -> str:
    used = settings(stop=["富士"], seed=1, max_tokens=30, number_of_responses=1)
    text = str(await ask(history_of(QUESTION), used))
    assert text == "日本で一番高い山は", text
    return text


@feature("usage")
async def usage() -> str:
    found = (await ask(history_of(QUESTION))).metadata["usage"]
    assert found.completion_tokens > 0, found
    return str(found)


@feature("JSON object")
async def json_object() -> str:
    text = str(await ask(history_of(CAPITAL), settings(response_format={"type": "json_object"})))
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema", "response_format=Model")
async def json_schema() -> str:
    text = str(await ask(history_of(CAPITAL), settings(response_format=Capital)))
    return str(Capital.model_validate_json(text))


@feature("tool required")
async def tool_required() -> str:
    used = settings(function_choice_behavior=FunctionChoiceBehavior.Required(auto_invoke=False))
    found = await ask(history_of(QUESTION), used, kernel_of())
    (call,) = [item for item in found.items if isinstance(item, FunctionCallContent)]
    assert call.name == "places-highest_mountain", call
    assert isinstance(call.parse_arguments()["country"], str), call
    return f"{call.name}({call.arguments})"


@feature("tool result", "required, then invoked")
async def tool_invoked() -> str:
    used = settings(function_choice_behavior=FunctionChoiceBehavior.Required())
    found = await ask(history_of(QUESTION), used, kernel_of())
    assert str(found).strip(), found
    return str(found)


@feature("tool auto", "answered in text")
async def tool_auto_text() -> str:
    used = settings(function_choice_behavior=FunctionChoiceBehavior.Auto())
    text = str(await ask(history_of(QUESTION), used, kernel_of()))
    assert ANSWER in text, text
    return text


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
async def tool_auto() -> str:
    used = settings(function_choice_behavior=FunctionChoiceBehavior.Auto(auto_invoke=False))
    found = await ask(history_of(QUESTION), used, kernel_of())
    assert any(isinstance(item, FunctionCallContent) for item in found.items), str(found)
    return str(found)


@feature("completions")
async def completions() -> str:
    made = OpenAITextCompletion(ai_model_id=MODEL, async_client=own_client())
    used = OpenAITextPromptExecutionSettings(max_tokens=8, temperature=0)
    text = str(await made.get_text_content("日本で一番高い山は", used))
    assert text, text
    return text


@feature("clear errors", "embeddings")
def embeddings() -> str:
    import asyncio

    made = OpenAITextEmbedding(ai_model_id=MODEL, async_client=own_client())
    return raises(
        lambda: asyncio.run(made.generate_embeddings(["富士山"])), "NotFoundError", EMBEDDINGS
    )


@feature("clear errors", "another model")
def wrong_model() -> str:
    import asyncio

    wrong = service("gpt-4o")
    return raises(
        lambda: asyncio.run(wrong.get_chat_message_content(history_of(QUESTION), settings())),
        "gpt-4o",
        MODEL,
    )


if __name__ == "__main__":
    report("semantic-kernel")
