"""Text: chat, streams, history, sampling, usage, the models, and errors."""

from __future__ import annotations

from typing import Any

from feature import (
    ANSWER,
    BASE_URL,
    EMBEDDINGS,
    KEY,
    MODEL,
    QUESTION,
    ROLE,
    feature,
    raises,
)
from openai import AsyncOpenAI
from openai_features.common import (
    USER,
    ask,
    client,
)


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


@feature("clear errors", "files and batches")
def files() -> str:
    return raises(client.files.list, "404", "stores nothing") + raises(client.batches.list, "404")


@feature("clear errors", "n beyond the limit")
def too_many() -> str:
    return raises(lambda: ask(n=100), "BadRequestError", "100")


@feature("clear errors", "request id")
def request_id() -> str:
    found = ask()._request_id
    assert found, found
    return str(found)
