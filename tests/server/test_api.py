"""The dialect over a real socket, asked by the `openai` client and by hand."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from issun.runtime import Model, SamplingParams
from tests.server.conftest import Running, embedded_server

QUESTION = [{"role": "user", "content": "日本で一番高い山は?"}]
GREEDY = {"temperature": 0, "max_tokens": 40}
NAME = "issun-embedded"


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def answer(model: Model, **options: Any) -> str:
    prompt = model.prompts.chat([], [], "日本で一番高い山は?", max_new_tokens=40).ids
    return model.generate(prompt, SamplingParams(max_new_tokens=40, **options)).text


@pytest.fixture(scope="module")
def expected() -> str:
    with Model.load(threads=1) as model:
        return answer(model, temperature=0)


def test_a_chat_answer(client: openai.OpenAI, expected: str) -> None:
    found = client.chat.completions.create(model=NAME, messages=QUESTION, **GREEDY)  # type: ignore[call-overload]
    assert found.choices[0].message.content == expected
    assert "富士山" in expected
    assert found.choices[0].finish_reason == "stop"
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_a_streamed_answer_joins_to_the_whole(client: openai.OpenAI, expected: str) -> None:
    chunks = list(
        client.chat.completions.create(  # type: ignore[call-overload]
            model=NAME,
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    *parts, usage = chunks
    assert "".join(c.choices[0].delta.content or "" for c in parts) == expected
    assert parts[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in parts][-1] == "stop"
    assert all(c.usage is None for c in parts)
    assert usage.choices == []
    assert usage.usage.completion_tokens > 0


def test_several_choices_with_a_seed_are_the_same_again(client: openai.OpenAI) -> None:
    def ask() -> list[str | None]:
        found = client.chat.completions.create(  # type: ignore[call-overload]
            model=NAME,
            messages=[{"role": "user", "content": "ぬるぽ、がっ、へのへのもへじ"}],
            n=8,
            seed=-5,
            temperature=2,
            max_tokens=20,
        )
        assert [choice.index for choice in found.choices] == list(range(8))
        return [choice.message.content for choice in found.choices]

    first = ask()
    assert first == ask()
    assert len(set(first)) > 1


def test_logprobs_are_of_the_raw_distribution(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME, messages=QUESTION, logprobs=True, top_logprobs=3, **GREEDY
    )
    entries = found.choices[0].logprobs.content
    assert len(entries) == found.usage.completion_tokens
    for entry in entries:
        assert entry.logprob == entry.top_logprobs[0].logprob
        assert entry.token == entry.top_logprobs[0].token
        assert len(entry.top_logprobs) == 3
        assert bytes(entry.bytes).decode() == entry.token
    assert "富士山" in "".join(e.token for e in entries)


def test_stop_strings_and_length(client: openai.OpenAI, expected: str) -> None:
    found = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME, messages=QUESTION, stop=["です", "山"], **GREEDY
    )
    assert found.choices[0].message.content == expected.split("山", maxsplit=1)[0]
    found = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME, messages=QUESTION, max_completion_tokens=2, temperature=0
    )
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 2


def test_a_role_and_turns_reach_the_model(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME,
        messages=[
            {"role": "system", "content": "語尾に「なのだ」を付けて話してください。"},
            {"role": "user", "content": "こんにちは"},
            {"role": "assistant", "content": "こんにちはなのだ。"},
            *QUESTION,
        ],
        **GREEDY,
    )
    assert "富士山" in found.choices[0].message.content


def test_json_by_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"],
        "additionalProperties": False,
    }
    found = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME,
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        **GREEDY,
    )
    assert isinstance(json.loads(found.choices[0].message.content)["n"], int)


@pytest.mark.parametrize("max_tokens", [40, 100])
def test_an_answer_in_a_grammar_ends(client: openai.OpenAI, max_tokens: int) -> None:
    properties = {"名": {"type": "string"}, "値": {"type": "number"}}
    schema = {"type": "object", "properties": properties, "required": ["名", "値"]}
    kinds: list[dict[str, Any]] = [
        {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        {"type": "json_object"},
    ]
    for kind in kinds:
        found = client.chat.completions.create(
            model=NAME, messages=QUESTION, response_format=kind, max_tokens=max_tokens, n=4
        )
        for choice in found.choices:
            assert choice.finish_reason == "stop"
            assert isinstance(json.loads(choice.message.content), dict)


def test_choices_and_bias(server: Running, embedded: Model) -> None:
    body = {"messages": QUESTION, "choices": ["琵琶湖", "富士山"], "temperature": 0}
    found = server.post("/v1/chat/completions", body).json()
    assert found["choices"][0]["message"]["content"] == "富士山"
    (first, *_) = embedded.tokenizer.encode("富士山")
    whole = server.post("/v1/chat/completions", {"messages": QUESTION, **GREEDY}).json()
    biased = {"messages": QUESTION, **GREEDY, "logit_bias": {str(first): -100}}
    other = server.post("/v1/chat/completions", biased).json()
    assert other["choices"][0]["message"] != whole["choices"][0]["message"]


def test_completions_of_several_prompts(client: openai.OpenAI, embedded: Model) -> None:
    ids = [embedded.prompt("日本で一番高い山は?"), embedded.prompt("フランスの首都は?")]
    found = client.completions.create(model=NAME, prompt=ids, temperature=0, max_tokens=30)
    params = SamplingParams(temperature=0, max_new_tokens=30)
    assert [c.text for c in found.choices] == [embedded.generate(p, params).text for p in ids]
    assert [c.index for c in found.choices] == [0, 1]
    assert found.usage is not None
    assert found.usage.prompt_tokens == sum(map(len, ids))


def test_echo_scores_the_prompt_as_lm_eval_asks(client: openai.OpenAI, embedded: Model) -> None:
    prompt = embedded.prompt("日本で一番高い山は?") + embedded.tokenizer.encode("富士山です")
    found = client.completions.create(
        model=NAME, prompt=[prompt], echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert len(logprobs.token_logprobs) == len(prompt) + 1
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    likeliest = [max(top.values()) for top in logprobs.top_logprobs[1:]]
    greedy = [a == b for a, b in zip(logprobs.token_logprobs[1:], likeliest, strict=True)]
    rows = embedded.score(prompt)
    assert greedy[:-1] == [
        int(row.argmax()) == token for row, token in zip(rows, prompt[1:], strict=False)
    ]
    assert greedy[-1]
    none = client.completions.create(
        model=NAME, prompt=[prompt], echo=True, logprobs=1, max_tokens=0
    )
    assert none.choices[0].logprobs is not None
    assert none.choices[0].logprobs.token_logprobs == logprobs.token_logprobs[:-1]


def test_offsets_in_json_count_an_escaped_newline_as_two_characters(server: Running) -> None:
    form = {"type": "json_schema", "schema": {"type": "string", "enum": ["山\n川です"]}}
    body = {"prompt": "山", "max_tokens": 40, "logprobs": 1, "response_format": form}
    (choice,) = server.post("/v1/completions", body).json()["choices"]
    text, found = choice["text"], choice["logprobs"]
    assert text == '"山\\n川です"'
    last = found["tokens"].index('"', 1)
    assert text[found["text_offset"][last] :] == '"'


def test_echo_alone_gives_the_prompt_back(server: Running) -> None:
    body = {"prompt": "日本の", "echo": True, "max_tokens": 0}
    (choice,) = server.post("/v1/completions", body).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("日本の", "length")
    assert choice["logprobs"] is None


def test_a_streamed_prompt_ends_once(server: Running) -> None:
    body = {"prompt": "日本の" * 60, "echo": True, "max_tokens": 0, "logprobs": 0, "stream": True}
    events = stream_of(server, body, "/v1/completions")
    chunks = [choice for event in events for choice in event["choices"]]
    assert [chunk["finish_reason"] for chunk in chunks if chunk["finish_reason"]] == ["length"]
    assert chunks[-1]["finish_reason"] == "length"
    assert "".join(chunk["text"] for chunk in chunks) == "日本の" * 60
    assert sum(len(chunk["logprobs"]["tokens"]) for chunk in chunks) > 60


def test_a_streamed_completion_with_echo(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=NAME, prompt="日本の", echo=True, temperature=0)
    parts = client.completions.create(
        model=NAME, prompt="日本の", echo=True, temperature=0, stream=True
    )
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    assert whole.choices[0].text.startswith("日本の")


@pytest.mark.parametrize("room", [1, 50, 99])
def test_a_long_prompt_is_answered_in_the_room_that_is_left(
    client: openai.OpenAI, server: Running, embedded: Model, room: int
) -> None:
    empty = len(embedded.prompts.chat([], [], "山", max_new_tokens=1).ids)
    message = {"role": "user", "content": "山" * (512 - room - empty + 1)}
    found = client.chat.completions.create(model=NAME, messages=[message])  # type: ignore[list-item]
    assert found.usage is not None
    assert found.usage.prompt_tokens == 512 - room
    with pytest.raises(openai.BadRequestError) as caught:  # as long as it was asked to be
        client.chat.completions.create(model=NAME, messages=[message], max_tokens=100)  # type: ignore[list-item]
    assert caught.value.code == "context_length_exceeded"


def test_the_client_s_error_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such"):
        client.chat.completions.create(model="no-such", messages=QUESTION)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\]"):
        client.chat.completions.create(  # type: ignore[call-overload]
            model=NAME, messages=QUESTION, tools=[{"type": "function"}]
        )
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=NAME, prompt="山" * 5000)
    assert caught.value.code == "context_length_exceeded"
    assert "This model's maximum context length is 512 tokens." in caught.value.message
    assert client.models.list().data[0].id == NAME
    assert client.models.retrieve(NAME).id == NAME


def test_tokens_there_and_back(server: Running, embedded: Model) -> None:
    text = "富士山は高い。"
    ids = server.post("/tokenize", {"prompt": text}).json()["tokens"]
    assert ids == embedded.tokenizer.encode(text)
    assert server.post("/detokenize", {"tokens": ids}).json() == {"prompt": text}
    chat = server.post("/tokenize", {"messages": QUESTION}).json()
    assert chat["count"] == len(chat["tokens"]) > len(ids)
    assert chat["max_model_len"] == 512


def test_progress_and_speed_are_told_where_they_are_asked_for(server: Running) -> None:
    body = {
        "messages": [{"role": "user", "content": "富士山は高い。" * 40}],
        "stream": True,
        "progress": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
    }
    events = stream_of(server, body)
    reads = [e["issun"]["read_tokens"] for e in events if "read_tokens" in e.get("issun", {})]
    assert reads == sorted(reads)
    assert reads[-1] == events[-1]["usage"]["prompt_tokens"]
    assert events[-1]["issun"]["dropped_turns"] == 0


def test_old_turns_that_were_dropped_are_counted(server: Running) -> None:
    turn = [
        {"role": "user", "content": "富士山について教えてください。" * 3},
        {"role": "assistant", "content": "日本で一番高い山です。" * 3},
    ]
    body = {"messages": [*turn * 12, *QUESTION], "max_tokens": 5}
    found = server.post("/v1/chat/completions", body).json()
    assert 0 < found["issun"]["dropped_turns"] < 12


def test_metrics_and_health(server: Running) -> None:
    server.post("/v1/chat/completions", {"messages": QUESTION, **GREEDY})
    text = server.get("/metrics").text
    for name in ("issun_queue_length", "issun_batch_size_bucket", "issun_resident_memory_bytes"):
        assert name in text
    counted = next(x for x in text.splitlines() if x.startswith("issun_new_tokens_total"))
    assert float(counted.split()[1]) > 0
    health = server.get("/health").json()
    assert health["status"] == "ok"
    assert health["memory_bytes"] > 1e7


def stream_of(
    server: Running, body: dict[str, Any], path: str = "/v1/chat/completions"
) -> list[dict[str, Any]]:
    events = []
    with httpx.stream("POST", server.url + path, json=body, timeout=60) as found:
        assert found.status_code == 200
        assert found.headers["content-type"].startswith("text/event-stream")
        for line in found.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line[6:]))
    return events


def test_two_clients_at_once_get_their_own_answers() -> None:
    from concurrent.futures import ThreadPoolExecutor

    questions = ["日本で一番高い山は?", "日本で一番広い湖は?", "フランスの首都は?"] * 4
    with embedded_server(slots=3) as server, ThreadPoolExecutor(12) as pool:
        bodies = [{"messages": [{"role": "user", "content": q}], **GREEDY} for q in questions]
        found = list(pool.map(lambda b: server.post("/v1/chat/completions", b).json(), bodies))
    texts = [f["choices"][0]["message"]["content"] for f in found]
    for text, word in zip(texts, ["富士山", "琵琶湖", "パリ"] * 4, strict=True):
        assert word in text


@pytest.mark.parametrize("cut", [3, 8, 9])  # where tokens end
def test_an_answer_that_has_begun_is_continued(
    client: openai.OpenAI, server: Running, expected: str, cut: int
) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": expected[:cut]}]
    found = client.chat.completions.create(model=NAME, messages=messages, **GREEDY)  # type: ignore[call-overload]
    assert found.choices[0].message.content == expected[cut:]
    chunks = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME, messages=messages, stream=True, **GREEDY
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected[cut:]
    counted = server.post("/tokenize", {"messages": messages}).json()["count"]
    assert counted == found.usage.prompt_tokens


def test_whether_an_answer_is_continued_may_be_said(server: Running, expected: str) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": expected[:4]}]
    for messages, goes_on in ((begun, True), (QUESTION, False)):
        said = {"continue_final_message": goes_on, "add_generation_prompt": not goes_on}
        found = server.post("/v1/chat/completions", {"messages": messages} | said | GREEDY)
        assert found.status_code == 200
        for name, value in said.items():
            body = {"messages": messages, name: not value}
            refused = server.post("/v1/chat/completions", body).json()["error"]
            assert refused["param"] == name


@pytest.mark.parametrize(
    ("history", "same_as"),
    [
        ([*QUESTION, {"role": "assistant", "content": ""}], QUESTION),
        ([{"role": "system", "content": QUESTION[0]["content"]}], QUESTION),
        (
            [*QUESTION, {"role": "system", "content": "役"}],
            [{"role": "system", "content": "役"}, *QUESTION],
        ),
        ([{"role": "user", "content": "", "name": "x"}, *QUESTION], QUESTION),
        (
            [{"role": "user", "content": "海は?"}, {"role": "tool", "content": "広い"}, *QUESTION],
            [{"role": "user", "content": f"海は?\n広い\n{QUESTION[0]['content']}"}],
        ),
    ],
)
def test_histories_that_mean_the_same_are_the_same_prompt(
    server: Running, history: Any, same_as: Any
) -> None:
    found, wanted = (
        server.post("/tokenize", {"messages": messages}).json()["tokens"]
        for messages in (history, same_as)
    )
    assert found == wanted


def test_the_end_is_ignored_where_that_is_asked_for(server: Running, expected: str) -> None:
    body = {"messages": QUESTION, "ignore_eos": True, "temperature": 0}
    found = server.post("/v1/chat/completions", body | {"max_tokens": 60}).json()
    assert found["usage"]["completion_tokens"] == 60
    assert found["choices"][0]["finish_reason"] == "length"
    assert found["choices"][0]["message"]["content"].startswith(expected)
    whole = server.post("/v1/chat/completions", body).json()["usage"]
    assert whole["total_tokens"] == 512  # the context
    text = server.post("/v1/completions", {"prompt": "山", "ignore_eos": True, "max_tokens": 90})
    assert text.json()["usage"]["completion_tokens"] == 90
    refused = server.post("/v1/chat/completions", body | {"choices": ["山"]}).json()["error"]
    assert refused["param"] == "ignore_eos"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_the_usage_is_in_every_chunk_where_that_is_asked_for(server: Running, path: str) -> None:
    body = {
        **({"messages": QUESTION} if "chat" in path else {"prompt": "日本の"}),
        **{"stream": True, "max_tokens": 5, "ignore_eos": True, "temperature": 0},
    }

    def usages(**options: bool) -> list[Any]:
        chunks = stream_of(server, body | {"stream_options": options}, path)
        return [chunk.get("usage") for chunk in chunks]

    *parts, last = usages(continuous_usage_stats=True, include_usage=True)
    counts = [usage["completion_tokens"] for usage in parts]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 5)
    assert all(u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] for u in parts)
    assert last == parts[-1]
    assert usages(continuous_usage_stats=True)[-1]["completion_tokens"] == 5
    assert usages(include_usage=True)[:-1] == [None] * len(parts)
    assert usages() == [None] * len(parts)


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": None}, 3),
        ({"max_tokens": 3.0, "min_tokens": 3}, 3),
        ({"max_tokens": -1}, None),
        ({"max_completion_tokens": -1}, None),
    ],
)
def test_how_long_an_answer_may_be(
    server: Running, expected: str, limits: dict[str, Any], tokens: int | None
) -> None:
    body = {"messages": QUESTION, "temperature": 0} | limits
    found = server.post("/v1/chat/completions", body).json()
    assert tokens in (None, found["usage"]["completion_tokens"])
    if tokens is None:
        assert found["choices"][0]["message"]["content"] == expected
    found = server.post("/v1/completions", {"prompt": "山", "ignore_eos": True} | limits).json()
    assert found["usage"]["total_tokens"] == (tokens or 512) + (
        found["usage"]["prompt_tokens"] if tokens else 0
    )


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ({"n": 17}, "n"),
    ],
)
def test_how_long_an_answer_cannot_be(server: Running, limits: Any, place: str) -> None:
    for path, body in (
        ("/v1/chat/completions", {"messages": QUESTION}),
        ("/v1/completions", {"prompt": "山"}),
    ):
        found = server.post(path, body | limits)
        assert found.status_code == 400
        assert found.json()["error"]["param"] == place


def test_tokens_as_transformers_counts_them(server: Running, embedded: Model) -> None:
    tokens = embedded.manifest.tokens
    text = f"<s>富士山{'[SEP]'}高い"
    ids = embedded.tokenizer.encode(text, special=True)
    assert ids[0] == tokens.bos
    assert tokens.sep in ids

    def asked(text: str, **fields: Any) -> Any:
        return server.post("/tokenize", {"prompt": text} | fields).json()["tokens"]

    assert asked(text, add_special_tokens=False) == ids
    assert asked(text, add_special_tokens=True) == [*ids, tokens.eos]
    assert asked("</s>", add_special_tokens=True) == asked("</s>", add_special_tokens=False)
    assert asked("</s>", add_special_tokens=False) == [tokens.eos]
    assert tokens.bos not in asked(text)
    found = server.post("/tokenize", {"messages": QUESTION, "add_special_tokens": True})
    assert found.json()["error"]["param"] == "add_special_tokens"
    info = server.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"], info["pad_token"]) == ("<s>", "</s>", "[PAD]")
    assert info["model_max_length"] == 512
    assert info["chat_template"] is None
