"""JSON that is filled leaf by leaf, over a real socket."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import openai
import pytest

from issun.runtime import Model
from tests.server.conftest import Running, embedded_server

NAME = "issun-embedded"
BOTH = {
    "type": "object",
    "properties": {
        "首都": {"type": "string"},
        "大陸": {"enum": ["アジア", "ヨーロッパ", "アフリカ"]},
    },
    "required": ["首都", "大陸"],
    "additionalProperties": False,
}
FRANCE = '{"首都":"パリ","大陸":"ヨーロッパ"}'


def body(schema: Any, question: str = "フランスについて教えて", **more: Any) -> dict[str, Any]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "response_format": form, "temperature": 0} | more


def post(server: Running, sent: dict[str, Any]) -> dict[str, Any]:
    found = server.post("/v1/chat/completions", sent)
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


def one(name: str, kind: dict[str, Any]) -> dict[str, Any]:
    return BOTH | {"properties": {name: kind}, "required": [name]}


@pytest.mark.parametrize(
    ("question", "schema", "expected"),
    [
        ("フランスについて教えて", BOTH, FRANCE),
        ("フランスの首都は?", one("capital", {"type": "string"}), '{"capital":"パリ"}'),
        ("5足す7は?", one("答え", {"type": "integer"}), '{"答え":12}'),
        (
            "青森県はどの地方?",
            one("地方", {"enum": ["関東地方", "東北地方"]}),
            '{"地方":"東北地方"}',
        ),
        ("9×9は?", one("積", {"type": ["number", "null"]}), '{"積":81}'),
        ("日本で一番高い山は?", {"type": "string"}, '"富士山"'),
        ("何でも", one("印", {"const": {"a": [1]}}), '{"印":{"a":[1]}}'),
    ],
)
def test_values_are_right(server: Running, question: str, schema: Any, expected: str) -> None:
    choice = post(server, body(schema, question))["choices"][0]
    assert choice["message"]["content"] == expected
    assert choice["finish_reason"] == "stop"


def test_the_openai_client_parses_and_streams(server: Running) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    sent = body(BOTH, stream=True, stream_options={"include_usage": True}, model=NAME)
    *parts, last = client.chat.completions.create(**sent)
    texts = [part.choices[0].delta.content for part in parts if part.choices[0].delta.content]
    assert "".join(texts) == FRANCE
    assert len(texts) == 2  # each value as it is written
    assert parts[-1].choices[0].finish_reason == "stop"
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_usage_counts_the_prompts_and_tokens_of_all_leaves(
    server: Running, embedded: Model
) -> None:
    usage = post(server, body(BOTH))["usage"]
    prompts = [
        embedded.prompts.chat([], [], f"フランスについて教えて\n{name}は?", max_new_tokens=9).ids
        for name in ("首都", "大陸")
    ]
    assert usage["prompt_tokens"] == sum(map(len, prompts))
    spoken = ["フランスの首都はパリです。", "フランスはヨーロッパの国です。"]
    least = sum(len(embedded.tokenizer.encode(text)) for text in spoken)
    assert least <= usage["completion_tokens"] <= least + 4  # with both end tokens
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0


def test_the_same_seed_gives_the_same_answers(server: Running) -> None:
    sent = body(BOTH, "一番好きな国は?", temperature=1.5, n=3, seed=5)
    first, second = (post(server, sent)["choices"] for _ in range(2))
    texts = [choice["message"]["content"] for choice in first]
    assert texts == [choice["message"]["content"] for choice in second]
    assert [choice["index"] for choice in first] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert all(json.loads(text).keys() == {"首都", "大陸"} for text in texts)
    alone = post(server, sent | {"n": 1, "seed": 7})["choices"][0]["message"]["content"]
    assert alone == texts[2]


@pytest.mark.parametrize("most", [10, 15, 20])
def test_max_tokens_bounds_all_leaves_together(server: Running, most: int) -> None:
    found = post(server, body(BOTH, max_tokens=most))
    assert found["usage"]["completion_tokens"] <= most
    assert found["choices"][0]["finish_reason"] == "stop"
    assert json.loads(found["choices"][0]["message"]["content"]).keys() == {"首都", "大陸"}


def test_fewer_tokens_than_the_leaves_need_are_refused(server: Running) -> None:
    found = server.post("/v1/chat/completions", body(BOTH, max_tokens=3))
    assert found.status_code == 400
    assert "schema needs at least 4 tokens, but the answer is limited to 3" in found.text


def test_logprobs_are_those_of_the_tokens_that_the_model_drew(server: Running) -> None:
    found = post(server, body(BOTH, logprobs=True, top_logprobs=1))
    entries = found["choices"][0]["logprobs"]["content"]
    assert len(entries) == found["usage"]["completion_tokens"]
    assert "パリ" in "".join(entry["token"] for entry in entries)
    assert all(entry["top_logprobs"][0]["logprob"] >= entry["logprob"] for entry in entries)


def test_what_has_no_skeleton_is_written_by_the_grammar(server: Running) -> None:
    either = {"anyOf": [one("a", {"type": "integer"}), one("b", {"type": "integer"})]}
    text = post(server, body(either))["choices"][0]["message"]["content"]
    ((name, value),) = json.loads(text).items()
    assert name in "ab"
    assert isinstance(value, int)


def test_what_a_client_has_begun_and_a_least_length_are_honoured(server: Running) -> None:
    sent = body(BOTH, max_tokens=60)
    begun = [*sent["messages"], {"role": "assistant", "content": "JSON:"}]
    assert "フランス" not in post(server, sent)["choices"][0]["message"]["content"]
    for more in ({"messages": begun}, {"min_tokens": 5}):
        found = post(server, sent | more)
        assert found["usage"]["completion_tokens"] >= 5
        assert json.loads(found["choices"][0]["message"]["content"]).keys() == {"首都", "大陸"}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (one("顔", {"enum": ["😀", "😢"]}), "#/properties/顔"),
        (one("n", {"type": "integer", "minimum": 5, "maximum": 4}), "response_format"),
        (one("s", {"type": "string", "pattern": "("}), "#/properties/s/pattern"),
        ({"$ref": "#/$defs/none"}, "response_format"),
    ],
)
def test_what_cannot_be_filled_is_refused_before_any_work(
    server: Running, schema: Any, named: str
) -> None:
    found = server.post("/v1/chat/completions", body(schema, stream=True))
    assert found.status_code == 400
    assert named in found.json()["error"]["message"] + str(found.json()["error"]["param"])


def test_a_leaf_goes_before_requests_that_wait_and_is_never_refused() -> None:
    with embedded_server(slots=1, max_queue=2) as server:
        found: list[httpx.Response] = []

        def ask(sent: dict[str, Any]) -> None:
            found.append(server.post("/v1/chat/completions", sent))

        texts = {
            "messages": [{"role": "user", "content": "日本で一番高い山は?"}],
            "max_tokens": 200,
        }
        threads = [threading.Thread(target=ask, args=(body(BOTH),))]
        threads += [threading.Thread(target=ask, args=(texts,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in found] == [200] * 3
        contents = [answer.json()["choices"][0]["message"]["content"] for answer in found]
        assert FRANCE in contents


def test_the_deadline_is_that_of_all_leaves() -> None:
    many = BOTH | {"properties": {f"名{n}": {"type": "string"} for n in range(60)}}
    many["required"] = list(many["properties"])
    with embedded_server(deadline=0.1) as server:
        found = server.post("/v1/chat/completions", body(many))
        assert found.status_code == 503
        assert found.json()["error"]["code"] == "deadline_exceeded"


def test_an_answer_whose_client_has_gone_is_given_up(server: Running) -> None:
    many = BOTH | {"properties": {f"名{n}": {"type": "string"} for n in range(60)}}
    many["required"] = list(many["properties"])
    url = server.url + "/v1/chat/completions"
    with httpx.stream("POST", url, json=body(many, stream=True), timeout=60) as stream:
        next(stream.iter_lines())
    before = server.service.scheduler.running
    for _ in range(100):
        if not server.service.scheduler.running and not server.service.scheduler.queued:
            break
        threading.Event().wait(0.05)
    assert before <= 1
    assert server.service.scheduler.running == server.service.scheduler.queued == 0
