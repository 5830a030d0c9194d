# /// script
# dependencies = ["langchain>=1", "langchain-openai>=1"]
# ///
"""LangChain for Python, as https://docs.langchain.com/oss/python/integrations/chat/openai does."""

from __future__ import annotations

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
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

llm = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=KEY, temperature=0, max_retries=0)
RESPONSES = llm.model_copy(update={"use_responses_api": True})


class Capital(BaseModel):
    """The capital of a country."""

    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"] = Field(description="首都")


@tool
def highest_mountain(country: Literal["日本", "中国", "フランス"]) -> str:
    """国で一番高い山を調べる。"""
    return {"日本": "富士山"}.get(country, "エベレスト")


@feature("chat")
def chat() -> str:
    text = llm.invoke(QUESTION).content
    assert ANSWER in text, text
    return text


@feature("chat", "init_chat_model")
def any_chat_model() -> str:
    made = init_chat_model(
        MODEL, model_provider="openai", base_url=BASE_URL, api_key=KEY, temperature=0
    )
    text = made.invoke([{"role": "user", "content": QUESTION}]).content
    assert ANSWER in text, text
    return text


@feature("chat", "prompt | model | parser")
def chain() -> str:
    prompt = ChatPromptTemplate.from_messages([("system", "{role}"), ("user", "{question}")])
    text = (prompt | llm | StrOutputParser()).invoke({"role": ROLE, "question": QUESTION})
    assert "なのだ" in text, text
    return text


@feature("stream")
def stream() -> str:
    chunks = [chunk.content for chunk in llm.stream(QUESTION)]
    assert ANSWER in "".join(chunks) and len(chunks) > 2, chunks
    return "".join(chunks)


@feature("async")
async def asynchronous() -> str:
    text = (await llm.ainvoke(QUESTION)).content
    chunks = [chunk.content async for chunk in llm.astream(QUESTION)]
    assert ANSWER in text and "".join(chunks) == text, (text, chunks)
    return text


@feature("batch")
def batch() -> str:
    texts = [found.content for found in llm.batch([QUESTION, CAPITAL])]
    assert ANSWER in texts[0] and len(texts) == 2, texts
    return str(texts)


@feature("system")
def system() -> str:
    text = llm.invoke([SystemMessage(ROLE), HumanMessage(QUESTION)]).content
    assert "なのだ" in text, text
    return text


@feature("history")
def history() -> str:
    said = llm.invoke(QUESTION)
    text = llm.invoke([HumanMessage(QUESTION), said, HumanMessage("最初の質問は何ですか?")]).content
    assert QUESTION in text, text
    return text


@feature("sampling")
def sampling() -> str:
    assert llm.invoke(QUESTION, stop=["富士"]).content == "日本で一番高い山は"
    other = ChatOpenAI(
        model=MODEL, base_url=BASE_URL, api_key=KEY, max_tokens=3, seed=1, top_p=0.5, n=1
    )
    found = other.invoke(QUESTION)
    assert found.response_metadata["finish_reason"] == "length", found
    return found.content


@feature("usage")
def usage() -> str:
    found = llm.invoke(QUESTION).usage_metadata
    assert found and found["output_tokens"] > 0, found
    return str(found)


@feature("usage", "stream")
def stream_usage() -> str:
    whole: Any = None
    for chunk in llm.stream(QUESTION, stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    assert whole.usage_metadata["output_tokens"] > 0, whole
    return str(whole.usage_metadata)


@feature("logprobs")
def logprobs() -> str:
    found = llm.bind(logprobs=True).invoke(QUESTION).response_metadata["logprobs"]["content"]
    assert len(found) > 2, found
    return f"{found[0]['token']!r} {found[0]['logprob']:.3f}"


@feature("JSON object", "json_mode")
def json_mode() -> str:
    made = llm.bind(response_format={"type": "json_object"}).invoke(CAPITAL)
    assert made.content.startswith("{"), made
    return made.content


@feature("JSON schema", "with_structured_output")
def structured() -> str:
    found = llm.with_structured_output(Capital).invoke(CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "with_structured_output, stream")
def structured_stream() -> str:
    *_, found = llm.with_structured_output(Capital).stream(CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "with_structured_output, a dict, raw included")
def structured_dict() -> str:
    schema = Capital.model_json_schema() | {"title": "capital"}
    made = llm.with_structured_output(schema, method="json_schema", include_raw=True)
    found = made.invoke(CAPITAL)
    Capital.model_validate(found["parsed"])
    return str(found["parsed"])


@feature("tool named", "with_structured_output(method='function_calling')")
def structured_by_tool() -> str:
    made = llm.with_structured_output(Capital, method="function_calling")
    found = made.invoke(CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("tool named", "bind_tools")
def tool_named() -> str:
    bound = llm.bind_tools([highest_mountain], tool_choice="highest_mountain")
    (call,) = bound.invoke(QUESTION).tool_calls
    return str(highest_mountain.invoke(call["args"]) and call["args"])


@feature("tool required")
def tool_required() -> str:
    bound = llm.bind_tools([highest_mountain], tool_choice="any")
    (call,) = bound.invoke(QUESTION).tool_calls
    return str(highest_mountain.invoke(call["args"]) and call["args"])


@feature("tool streamed")
def tool_streamed() -> str:
    bound = llm.bind_tools([highest_mountain], tool_choice="required")
    whole: Any = None
    for chunk in bound.stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    (call,) = whole.tool_calls
    return str(highest_mountain.invoke(call["args"]) and call["args"])


@feature("tool result")
def tool_result() -> str:
    call = {"name": "highest_mountain", "args": {"country": "日本"}, "id": "call_1"}
    said = AIMessage("", tool_calls=[call])
    result = ToolMessage("富士山", tool_call_id="call_1")
    bound = llm.bind_tools([highest_mountain])
    text = bound.invoke([HumanMessage(QUESTION), said, result]).content
    assert text.strip(), text
    return text


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    found = llm.bind_tools([highest_mountain]).invoke(QUESTION)
    assert found.tool_calls, found.content
    return str(found.tool_calls)


@feature("tool auto", "agent that may answer at once")
def agent() -> str:
    made = create_agent(llm, tools=[highest_mountain])
    found = made.invoke({"messages": [{"role": "user", "content": QUESTION}]})
    text = found["messages"][-1].content
    assert ANSWER in text, text
    return text


@feature("JSON schema", "agent with response_format")
def agent_format() -> str:
    made = create_agent(llm, tools=[], response_format=Capital)
    found = made.invoke({"messages": [{"role": "user", "content": CAPITAL}]})
    assert isinstance(found["structured_response"], Capital), found
    return str(found["structured_response"])


@feature("completions")
def completions() -> str:
    made = OpenAI(model=MODEL, base_url=BASE_URL, api_key=KEY, temperature=0, max_tokens=8)
    text = made.invoke("日本で一番高い山は")
    assert text, text
    return text


@feature("responses")
def responses() -> str:
    found = RESPONSES.invoke([SystemMessage(ROLE), HumanMessage(QUESTION)])
    assert "なのだ" in found.text, found
    return found.text


@feature("responses", "stream")
def responses_stream() -> str:
    text = "".join(chunk.text for chunk in RESPONSES.stream(QUESTION))
    assert ANSWER in text, text
    return text


@feature("responses", "history")
def responses_history() -> str:
    said = RESPONSES.invoke(QUESTION)
    more = HumanMessage("最初の質問は何ですか?")
    text = RESPONSES.invoke([HumanMessage(QUESTION), said, more]).text
    assert QUESTION in text, text
    return text


@feature("responses", "with_structured_output")
def responses_structured() -> str:
    found = RESPONSES.with_structured_output(Capital).invoke(CAPITAL)
    assert isinstance(found, Capital), found
    return str(found)


@feature("responses", "bind_tools")
def responses_tool() -> str:
    bound = RESPONSES.bind_tools([highest_mountain], tool_choice="highest_mountain")
    (call,) = bound.invoke(QUESTION).tool_calls
    return str(highest_mountain.invoke(call["args"]) and call["args"])


@feature("clear errors", "embeddings")
def embeddings() -> str:
    made = OpenAIEmbeddings(
        model=MODEL, base_url=BASE_URL, api_key=KEY, check_embedding_ctx_length=False
    )
    return raises(lambda: made.embed_query("富士山"), "NotFoundError", EMBEDDINGS)


@feature("clear errors", "another model")
def wrong_model() -> str:
    made = ChatOpenAI(model="gpt-4o", base_url=BASE_URL, api_key=KEY, max_retries=0)
    return raises(lambda: made.invoke(QUESTION), "gpt-4o", MODEL)


if __name__ == "__main__":
    report("langchain-openai")
