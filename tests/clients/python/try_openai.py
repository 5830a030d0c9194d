# /// script
# dependencies = ["openai>=2", "pydantic>=2"]
# ///
"""The OpenAI package for Python, as https://github.com/openai/openai-python shows it."""

from __future__ import annotations

import datetime
import json
from typing import Any, Literal

import openai
from feature import (
    ANSWER,
    BASE_URL,
    CAPITAL,
    EMBEDDINGS,
    KEY,
    MODEL,
    PARIS,
    QUESTION,
    ROLE,
    feature,
    raises,
    report,
)
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

client = OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
USER: Any = [{"role": "user", "content": QUESTION}]
FRANCE: Any = [{"role": "user", "content": CAPITAL}]


class Capital(BaseModel):
    """The capital of a country."""

    capital: Literal["ローマ", "パリ", "ベルリン", "ロンドン"] = Field(description="首都")


class Stop(BaseModel):
    days: int = Field(ge=1, le=30)
    price: float | None = None


class Journey(BaseModel):
    """A journey."""

    name: str
    tags: list[str]
    season: Literal["春", "夏", "秋", "冬"]
    begins: datetime.date
    first: Stop
    stops: list[Stop] = Field(max_length=3)
    seats: dict[str, int] = {}
    number: int | str
    paid: bool | None


class Node(BaseModel):
    value: int
    next: Node | None = None


SCHEMA: Any = Capital.model_json_schema() | {"additionalProperties": False}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "capital", "schema": SCHEMA}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "capital", "description": "首都を答える。", "parameters": SCHEMA},
}
OTHER: Any = {
    "type": "function",
    "function": {
        "name": "population",
        "description": "人口を答える。",
        "parameters": {
            "type": "object",
            "properties": {"people": {"type": "integer", "minimum": 0, "maximum": 999}},
            "required": ["people"],
        },
    },
}
NAMED: Any = {"type": "function", "function": {"name": "capital"}}
RESPONSES_TOOL: Any = {"type": "function", "strict": False, **TOOL["function"]}


def ask(messages: Any = USER, **more: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=messages, temperature=0, **more)


@feature("chat")
def chat() -> str:
    text = ask().choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("chat", "parts of text")
def parts() -> str:
    content = [{"type": "text", "text": "日本で一番"}, {"type": "text", "text": "高い山は?"}]
    text = ask([{"role": "user", "content": content}]).choices[0].message.content
    assert ANSWER in text, text
    return text


@feature("chat", "fields that ask for nothing")
def idle_fields() -> str:
    text = (
        ask(
            tools=[],
            tool_choice="none",
            parallel_tool_calls=False,
            metadata=None,
            store=False,
            service_tier="auto",
            user="x",
            reasoning_effort="low",
            verbosity="low",
            prompt_cache_key="x",
            safety_identifier="x",
            modalities=["text"],
        )
        .choices[0]
        .message.content
    )
    assert ANSWER in text, text
    return text


@feature("stream")
def stream() -> str:
    chunks = [c.choices[0].delta.content or "" for c in ask(stream=True) if c.choices]
    text = "".join(chunks)
    assert ANSWER in text, text
    assert len([c for c in chunks if c]) > 2, chunks
    return text


@feature("stream", "chat.completions.stream")
def stream_helper() -> str:
    with client.chat.completions.stream(model=MODEL, messages=USER, temperature=0) as events:
        kinds = {event.type for event in events}
        text = events.get_final_completion().choices[0].message.content or ""
    assert ANSWER in text, text
    assert {"content.delta", "content.done"} <= kinds, kinds
    return text


@feature("async")
async def asynchronous() -> str:
    async with AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0) as own:
        done = await own.chat.completions.create(model=MODEL, messages=USER, temperature=0)
        text = done.choices[0].message.content or ""
    assert ANSWER in text, text
    return text


@feature("async", "stream")
async def asynchronous_stream() -> str:
    async with AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0) as own:
        chunks = await own.chat.completions.create(
            model=MODEL, messages=USER, temperature=0, stream=True
        )
        text = "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
    assert ANSWER in text, text
    return text


@feature("system")
def system() -> str:
    text = ask([{"role": "system", "content": ROLE}, *USER]).choices[0].message.content
    assert "なのだ" in text, text
    return text


@feature("system", "developer")
def developer() -> str:
    text = ask([{"role": "developer", "content": ROLE}, *USER]).choices[0].message.content
    assert "なのだ" in text, text
    return text


@feature("history")
def history() -> str:
    said = {"role": "assistant", "content": "富士山です。"}
    more = {"role": "user", "content": "最初の質問は何ですか?"}
    text = ask([*USER, said, more]).choices[0].message.content
    assert QUESTION in text, text
    return text


@feature("history", "message put back")
def put_back() -> str:
    said = ask().choices[0].message
    more = {"role": "user", "content": "最初の質問は何ですか?"}
    for message in (said, said.model_dump()):
        text = ask([*USER, message, more]).choices[0].message.content
        assert QUESTION in text, text
    return text


@feature("history", "assistant last")
def continued() -> str:
    said = {"role": "assistant", "content": "日本で一番高い山は"}
    text = ask([*USER, said]).choices[0].message.content
    assert text.startswith(ANSWER), text
    return text


@feature("sampling", "stop")
def stop() -> str:
    choice = ask(stop=["富士"]).choices[0]
    assert choice.message.content == "日本で一番高い山は", choice
    assert choice.finish_reason == "stop", choice
    return choice.message.content


@feature("sampling", "max_tokens")
def max_tokens() -> str:
    for name in ("max_tokens", "max_completion_tokens"):
        done = ask(**{name: 3})
        assert done.choices[0].finish_reason == "length", done
        assert done.usage.completion_tokens == 3, done
    return done.choices[0].message.content


@feature("sampling", "seed")
def seed() -> str:
    def answer(seed: int) -> Any:
        made = client.chat.completions.create(
            model=MODEL, messages=USER, temperature=2, top_p=0.99, seed=seed, max_tokens=20
        )
        return made.choices[0].message.content

    assert answer(1) == answer(1)
    assert len({answer(seed) for seed in range(4)}) > 1
    return answer(1)


@feature("sampling", "n")
def several() -> str:
    texts = [choice.message.content for choice in ask(n=2).choices]
    assert len(texts) == 2 and ANSWER in texts[1], texts
    return str(texts)


@feature("sampling", "n, stream")
def several_streams() -> str:
    texts = ["", ""]
    for chunk in ask(n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(ANSWER in text for text in texts), texts
    return str(texts)


@feature("choices", "extra_body")
def choices() -> str:
    text = ask(FRANCE, extra_body={"choices": ["ローマ", PARIS]}).choices[0].message.content
    assert text == PARIS, text
    return text


@feature("regex", "extra_body")
def regex() -> str:
    text = ask(extra_body={"regex": "[0-9]{2}"}).choices[0].message.content
    assert len(text) == 2 and text.isdecimal(), text
    return text


@feature("usage")
def usage() -> str:
    found = ask().usage
    assert found.prompt_tokens > 0 and found.completion_tokens > 0, found
    assert found.total_tokens == found.prompt_tokens + found.completion_tokens, found
    return str(found)


@feature("usage", "stream")
def stream_usage() -> str:
    *_, last = ask(stream=True, stream_options={"include_usage": True})
    assert not last.choices and last.usage.completion_tokens > 0, last
    return str(last.usage)


@feature("logprobs")
def logprobs() -> str:
    content = ask(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content) > 2 and len(content[0].top_logprobs) == 2, content
    assert bytes(b for token in content for b in token.bytes).decode().count(ANSWER) == 1
    return f"{content[0].token!r} {content[0].logprob:.3f}"


@feature("JSON object")
def json_object() -> str:
    text = ask(FRANCE, response_format={"type": "json_object"}).choices[0].message.content
    assert isinstance(json.loads(text), dict), text
    return text


@feature("JSON schema")
def json_schema() -> str:
    text = ask(FRANCE, response_format=FORMAT).choices[0].message.content
    Capital.model_validate_json(text)
    return text


@feature("JSON schema", "parse")
def parse() -> str:
    done = client.chat.completions.parse(
        model=MODEL, messages=FRANCE, response_format=Capital, temperature=0
    )
    found = done.choices[0].message.parsed
    assert isinstance(found, Capital), done
    return str(found)


@feature("JSON schema", "stream")
def parse_stream() -> str:
    with client.chat.completions.stream(
        model=MODEL, messages=FRANCE, response_format=Capital, temperature=0
    ) as events:
        found = events.get_final_completion().choices[0].message.parsed
    assert isinstance(found, Capital), found
    return str(found)


@feature("JSON schema", "lists, dates, options, references, maps")
def json_schema_of_much() -> str:
    schema = Journey.model_json_schema()
    asked: Any = {"type": "json_schema", "json_schema": {"name": "journey", "schema": schema}}
    text = ask(FRANCE, response_format=asked).choices[0].message.content
    return str(Journey.model_validate_json(text))


@feature("JSON schema", "a recursive type")
def json_schema_recursive() -> str:
    done = client.chat.completions.parse(model=MODEL, messages=FRANCE, response_format=Node)
    assert isinstance(done.choices[0].message.parsed, Node), done
    return str(done.choices[0].message.parsed)


@feature("JSON schema", "cut by max_tokens")
def json_schema_cut() -> str:
    try:
        client.chat.completions.parse(
            model=MODEL, messages=FRANCE, response_format=Journey, max_tokens=3
        )
    except openai.LengthFinishReasonError as error:
        return str(error)[:80]
    raise AssertionError("it was not cut")


@feature("logprobs", "of JSON by a schema")
def logprobs_of_json() -> str:
    choice = ask(FRANCE, response_format=FORMAT, logprobs=True).choices[0]
    spelt = bytes(b for token in choice.logprobs.content for b in token.bytes).decode()
    assert spelt == choice.message.content, (spelt, choice.message.content)
    return spelt


@feature("JSON schema", "right answer")
def parse_right() -> str:
    found = Capital.model_validate_json(
        ask(FRANCE, response_format=FORMAT).choices[0].message.content
    )
    assert found.capital == PARIS, found
    return str(found)


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


@feature("completions")
def completions() -> str:
    done = client.completions.create(
        model=MODEL, prompt="日本で一番高い山は", max_tokens=8, temperature=0, logprobs=1, echo=True
    )
    assert done.choices[0].text.startswith("日本で一番高い山は"), done
    return done.choices[0].text


@feature("completions", "stream")
def completions_stream() -> str:
    chunks = client.completions.create(
        model=MODEL, prompt="日本で一番高い山は", max_tokens=8, temperature=0, stream=True
    )
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text, text
    return text


@feature("batch", "several prompts in one request")
def prompts() -> str:
    done = client.completions.create(model=MODEL, prompt=["日本は", "山は"], max_tokens=3)
    assert [choice.index for choice in done.choices] == [0, 1], done
    return str([choice.text for choice in done.choices])


@feature("models")
def models() -> str:
    names = [model.id for model in client.models.list()]
    assert names == [MODEL], names
    assert client.models.retrieve(MODEL).id == MODEL
    return str(names)


@feature("clear errors", "another model")
def wrong_model() -> str:
    def wrong() -> Any:
        return client.chat.completions.create(model="gpt-4o", messages=USER)

    return raises(wrong, "NotFoundError", "gpt-4o", MODEL)


@feature("clear errors", "embeddings")
def embeddings() -> str:
    def embed() -> Any:
        return client.embeddings.create(model=MODEL, input="富士山")

    return raises(embed, "NotFoundError", EMBEDDINGS)


@feature("clear errors", "image")
def image() -> str:
    content = [
        {"type": "text", "text": "これは何?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    return raises(
        lambda: ask([{"role": "user", "content": content}]), "BadRequestError", "messages[0]"
    )


@feature("clear errors", "a tool that is no function")
def other_tool() -> str:
    search: Any = [{"type": "web_search"}]
    return raises(
        lambda: client.responses.create(model=MODEL, input="?", tools=search),
        "BadRequestError",
        "tools[0]",
    )


@feature("clear errors", "a function that is not there")
def missing_function() -> str:
    other = {"type": "function", "function": {"name": "other"}}
    return raises(
        lambda: ask(tools=[TOOL], tool_choice=other), "BadRequestError", "tool_choice", "capital"
    )


@feature("clear errors", "files and batches")
def files() -> str:
    return raises(client.files.list, "404", "Nothing is kept") + raises(client.batches.list, "404")


@feature("clear errors", "n beyond the limit")
def too_many() -> str:
    return raises(lambda: ask(n=100), "BadRequestError", "100")


@feature("clear errors", "request id")
def request_id() -> str:
    found = ask()._request_id
    assert found, found
    return str(found)


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


if __name__ == "__main__":
    report("openai")
