# /// script
# dependencies = ["llama-index-core>=0.14", "llama-index-llms-openai-like>=0.5"]
# ///
"""LlamaIndex's OpenAILike, as its documentation of OpenAI-compatible servers shows it."""

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
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


def like(**more: Any) -> OpenAILike:
    settings: Any = {
        "model": MODEL,
        "api_base": BASE_URL,
        "api_key": KEY,
        "context_window": 512,
        "is_chat_model": True,
        "temperature": 0,
        "max_retries": 0,
    }
    return OpenAILike(**settings | more)


llm = like()
calling = like(is_function_calling_model=True)
formatted = like(should_use_structured_outputs=True)
USER = ChatMessage(role="user", content=QUESTION)
PROMPT = PromptTemplate("{question}")


class Capital(BaseModel):
    """首都"""

    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


def highest_mountain(country: str) -> str:
    """国で一番高い山を調べる。"""
    return ANSWER


TOOL = FunctionTool.from_defaults(fn=highest_mountain)


@feature("chat", "complete")
def complete() -> str:
    text = llm.complete(QUESTION).text
    assert ANSWER in text, text
    return text


@feature("chat")
def chat() -> str:
    text = llm.chat([USER]).message.content or ""
    assert ANSWER in text, text
    return text


@feature("stream")
def stream() -> str:
    texts = [chunk.delta or "" for chunk in llm.stream_chat([USER])]
    assert ANSWER in "".join(texts) and len(texts) > 2, texts
    return "".join(texts)


@feature("stream", "stream_complete")
def stream_complete() -> str:
    text = "".join(chunk.delta or "" for chunk in llm.stream_complete(QUESTION))
    assert ANSWER in text, text
    return text


@feature("async")
async def asynchronous() -> str:
    own = like()
    text = (await own.achat([USER])).message.content or ""
    texts = [chunk.delta or "" async for chunk in await own.astream_chat([USER])]
    assert ANSWER in text and "".join(texts) == text, (text, texts)
    return text


@feature("system")
def system() -> str:
    text = llm.chat([ChatMessage(role="system", content=ROLE), USER]).message.content or ""
    assert "なのだ" in text, text
    return text


@feature("history")
def history() -> str:
    said = llm.chat([USER]).message
    more = ChatMessage(role="user", content="最初の質問は何ですか?")
    text = llm.chat([USER, said, more]).message.content or ""
    assert QUESTION in text, text
    return text


@feature("history", "SimpleChatEngine")
def chat_engine() -> str:
    engine = SimpleChatEngine.from_defaults(llm=llm, system_prompt=ROLE)
    engine.chat(QUESTION)
    text = str(engine.chat("最初の質問は何ですか?"))
    assert text, text
    return text


@feature("sampling")
def sampling() -> str:
    own = like(max_tokens=30, additional_kwargs={"seed": 1, "stop": ["富士"]})
    text = own.complete(QUESTION).text
    assert text == "日本で一番高い山は", text
    return text


@feature("logprobs")
def logprobs() -> str:
    found = like(logprobs=True, top_logprobs=2).chat([USER]).logprobs
    assert found and len(found) > 2, found
    return str(found[0][0])


@feature("completions")
def completions() -> str:
    text = like(is_chat_model=False, max_tokens=8).complete("日本で一番高い山は").text
    assert text, text
    return text


@feature("JSON schema", "structured_predict")
def structured_predict() -> str:
    found = formatted.structured_predict(Capital, PROMPT, question=CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "as_structured_llm")
def structured_llm() -> str:
    found = formatted.as_structured_llm(Capital).complete(CAPITAL).raw
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool required", "structured_predict")
def structured_by_tool() -> str:
    found = calling.structured_predict(Capital, PROMPT, question=CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool required", "FunctionCallingProgram")
def program() -> str:
    made = FunctionCallingProgram.from_defaults(
        output_cls=Capital, prompt_template_str="{question}", llm=calling
    )
    found = made(question=CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool required", "predict_and_call")
def predict_and_call() -> str:
    found = calling.predict_and_call([TOOL], user_msg=QUESTION, tool_required=True)
    assert ANSWER in str(found), found
    return str(found)


@feature("tool required", "chat_with_tools")
def chat_with_tools() -> str:
    found = calling.chat_with_tools([TOOL], user_msg=QUESTION, tool_required=True)
    (call,) = calling.get_tool_calls_from_response(found)
    return f"{call.tool_name}({call.tool_kwargs})"


@feature("tool streamed", "stream_chat_with_tools")
def tool_streamed() -> str:
    *_, found = calling.stream_chat_with_tools([TOOL], user_msg=QUESTION, tool_required=True)
    (call,) = calling.get_tool_calls_from_response(found)
    return f"{call.tool_name}({call.tool_kwargs})"


@feature(
    "tool auto", "stream_structured_predict", limit="LlamaIndex leaves the choice to the model"
)
def stream_structured_auto() -> str:
    *_, found = calling.stream_structured_predict(Capital, PROMPT, question=CAPITAL)
    Capital.model_validate(found.model_dump())
    return str(found)


@feature("tool result")
def tool_result() -> str:
    found = calling.chat_with_tools([TOOL], user_msg=QUESTION, tool_required=True)
    (call,) = calling.get_tool_calls_from_response(found)
    result = ChatMessage(
        role="tool", content=ANSWER, additional_kwargs={"tool_call_id": call.tool_id}
    )
    text = calling.chat([USER, found.message, result]).message.content or ""
    assert text.strip(), text
    return text


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    found = calling.chat_with_tools([TOOL], user_msg=QUESTION)
    assert calling.get_tool_calls_from_response(found), found
    return str(found)


@feature("clear errors", "another model")
def wrong_model() -> str:
    return raises(lambda: like(model="gpt-4o").complete(QUESTION), "gpt-4o", MODEL)


if __name__ == "__main__":
    report("llama-index-llms-openai-like")
