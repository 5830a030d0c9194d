# /// script
# dependencies = ["litellm>=1.80"]
# ///
"""LiteLLM, as https://docs.litellm.ai/docs/providers/openai_compatible shows it."""

from __future__ import annotations

import json
from typing import Any, Literal

import litellm
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
from pydantic import BaseModel

USER: Any = [{"role": "user", "content": QUESTION}]
FRANCE: Any = [{"role": "user", "content": CAPITAL}]
WHERE: Any = {"api_base": BASE_URL, "api_key": KEY, "num_retries": 0, "max_retries": 0}


class Capital(BaseModel):
    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"]


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "capital",
        "description": "首都を答える。",
        "parameters": Capital.model_json_schema(),
    },
}
NAMED: Any = {"type": "function", "function": {"name": "capital"}}


def ask(messages: Any = USER, provider: str = "openai", **more: Any) -> Any:
    return litellm.completion(
        model=f"{provider}/{MODEL}", messages=messages, temperature=0, **WHERE, **more
    )


@feature("chat")
def chat() -> str:
    text = ask().choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("chat", "hosted_vllm/")
def as_vllm() -> str:
    text = ask(provider="hosted_vllm").choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("chat", "Router")
def router() -> str:
    params = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": KEY}
    made = litellm.Router(model_list=[{"model_name": "small", "litellm_params": params}])
    text = made.completion(model="small", messages=USER, temperature=0).choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("stream")
def stream() -> str:
    texts = [c.choices[0].delta.content or "" for c in ask(stream=True) if c.choices]
    assert ANSWER in "".join(texts) and len(texts) > 2, texts
    return "".join(texts)


@feature("async")
async def asynchronous() -> str:
    found = await litellm.acompletion(model=f"openai/{MODEL}", messages=USER, **WHERE)
    text = found.choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("batch")
def batch() -> str:
    found = litellm.batch_completion(model=f"openai/{MODEL}", messages=[USER, FRANCE], **WHERE)
    texts = [one.choices[0].message.content for one in found]
    assert ANSWER in texts[0] and len(texts) == 2, texts
    return str(texts)


@feature("system")
def system() -> str:
    text = ask([{"role": "system", "content": ROLE}, *USER]).choices[0].message.content
    assert "なのだ" in text, text
    return text


@feature("history", "message put back")
def history() -> str:
    said = ask().choices[0].message
    more = {"role": "user", "content": "最初の質問は何ですか?"}
    for message in (said, said.model_dump()):
        text = ask([*USER, message, more]).choices[0].message.content
        assert QUESTION in text, text
    return text


@feature("history", "prefix to be continued")
def prefix() -> str:
    said = {"role": "assistant", "content": "日本で一番高い山は", "prefix": True}
    text = ask([*USER, said]).choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("history", "cache_control")
def cache_control() -> str:
    part = {"type": "text", "text": ROLE, "cache_control": {"type": "ephemeral"}}
    text = ask([{"role": "system", "content": [part]}, *USER]).choices[0].message.content
    assert "なのだ" in text, text
    return text


@feature("sampling")
def sampling() -> str:
    found = ask(stop=["富士"], max_tokens=30, seed=1, n=1, user="x").choices[0]
    assert found.message.content == "日本で一番高い山は", found
    return found.message.content


@feature("usage", "stream")
def usage() -> str:
    *_, last = ask(stream=True, stream_options={"include_usage": True})
    assert last.usage.completion_tokens > 0, last
    return str(last.usage)


@feature("logprobs")
def logprobs() -> str:
    found = ask(logprobs=True, top_logprobs=2).choices[0].logprobs
    assert len(found.content) > 2, found
    return f"{found.content[0].token!r} {found.content[0].logprob:.3f}"


@feature("JSON object")
def json_object() -> str:
    text = ask(FRANCE, response_format={"type": "json_object"}).choices[0].message.content
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema", "response_format=Model")
def json_schema() -> str:
    text = ask(FRANCE, response_format=Capital).choices[0].message.content
    return str(Capital.model_validate_json(text))


@feature("JSON schema", "json_object with response_schema")
def response_schema() -> str:
    asked = {"type": "json_object", "response_schema": Capital.model_json_schema()}
    text = ask(FRANCE, response_format=asked).choices[0].message.content
    return str(Capital.model_validate_json(text))


@feature("JSON schema", "hosted_vllm/ with guided_json")
def guided_json() -> str:
    asked = {"guided_json": Capital.model_json_schema()}
    text = ask(FRANCE, "hosted_vllm", extra_body=asked).choices[0].message.content
    return str(Capital.model_validate_json(text))


@feature("choices", "extra_body")
def choices() -> str:
    text = ask(FRANCE, extra_body={"choices": ["ローマ", "パリ"]}).choices[0].message.content
    assert text == "パリ", text
    return text


def called(choice: Any) -> str:
    (call,) = choice.message.tool_calls
    assert call.function.name == "capital", call
    return str(Capital.model_validate_json(call.function.arguments))


@feature("tool named")
def tool_named() -> str:
    return called(ask(FRANCE, tools=[TOOL], tool_choice=NAMED).choices[0])


@feature("tool required")
def tool_required() -> str:
    return called(ask(FRANCE, tools=[TOOL], tool_choice="required").choices[0])


@feature("tool required", "functions, as it was before tools")
def functions() -> str:
    named = {"name": "capital"}
    choice = ask(FRANCE, functions=[TOOL["function"]], function_call=named).choices[0]
    call = choice.message.function_call or choice.message.tool_calls[0].function
    return str(Capital.model_validate_json(call.arguments))


@feature("tool streamed")
def tool_streamed() -> str:
    chunks = list(ask(FRANCE, tools=[TOOL], tool_choice="required", stream=True))
    return called(litellm.stream_chunk_builder(chunks, messages=FRANCE).choices[0])


@feature("tool result")
def tool_result() -> str:
    said = ask(FRANCE, tools=[TOOL], tool_choice=NAMED).choices[0].message
    result = {
        "role": "tool",
        "tool_call_id": said.tool_calls[0].id,
        "name": "capital",
        "content": "パリ",
    }
    text = ask([*FRANCE, said, result], tools=[TOOL]).choices[0].message.content
    assert text.strip(), text
    return text


@feature("tool auto", limit="the model does not decide whether to call: it answers in text")
def tool_auto() -> str:
    return called(ask(FRANCE, tools=[TOOL], tool_choice="auto").choices[0])


@feature("completions")
def completions() -> str:
    found = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}", prompt="日本で一番高い山は", max_tokens=8, **WHERE
    )
    assert found.choices[0].text, found
    return found.choices[0].text


@feature("responses")
def responses() -> str:
    found = litellm.responses(model=f"openai/{MODEL}", input=QUESTION, temperature=0, **WHERE)
    text = found.output[0].content[0].text
    assert ANSWER in text, text
    return text


@feature("responses", "stream")
def responses_stream() -> str:
    events = litellm.responses(model=f"openai/{MODEL}", input=QUESTION, stream=True, **WHERE)
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert ANSWER in text, text
    return text


@feature("clear errors", "embeddings")
def embeddings() -> str:
    return raises(
        lambda: litellm.embedding(model=f"openai/{MODEL}", input=["富士山"], **WHERE),
        "NotFoundError",
        EMBEDDINGS,
    )


@feature("clear errors", "context")
def context() -> str:
    many = [{"role": "user", "content": "山" * 3000}]
    return raises(lambda: ask(many), "ContextWindowExceededError")


@feature("clear errors", "another model")
def wrong_model() -> str:
    return raises(
        lambda: litellm.completion(model="openai/gpt-4o", messages=USER, **WHERE), "gpt-4o", MODEL
    )


if __name__ == "__main__":
    report("litellm")
