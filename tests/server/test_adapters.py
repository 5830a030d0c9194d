"""One server with several adapters: each request chooses one by the name of its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import Model, SamplingParams
from tests.adapters import random_adapter
from tests.server.conftest import Running, running

NAME = "unscaled"
MODELS = {NAME: None} | {f"{NAME}:{name}": name for name in ("a1", "a2", "a3")}
REQUESTS, THREADS = 200, 4
TEXTS = ["一寸法師", "お椀の舟に乗って", "鬼が出て、", "むかしむかし、あるところに"]


@pytest.fixture(scope="module")
def model(bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model with int8 weights and keys and values, and three adapters."""
    folder, target = bundle(NAME, "int8", kv_cache="int8"), tmp_path_factory.mktemp("adapters")
    files = [
        random_adapter(folder, target / "a1", seed=1),
        random_adapter(folder, target / "a2", seed=2, rank=3, parts=["qkv"]),
        random_adapter(folder, target / "a3", seed=3, rank=17, parts=["out", "up"]),
    ]
    with Model.load(folder, threads=1, adapters=files) as found:
        yield found


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[tuple[str, str], str]:
    """The text that each model gives to each of TEXTS when nothing else runs."""
    params = SamplingParams(temperature=0, max_new_tokens=12)
    return {
        (name, text): model.generate(text, params, adapter=adapter).text
        for name, adapter in MODELS.items()
        for text in TEXTS
    }


@pytest.fixture(scope="module")
def server(model: Model, alone: object) -> Iterator[Running]:
    with running(model, slots=6, max_queue=REQUESTS) as found:
        yield found


def complete(server: Running, model: str | None, text: str) -> dict[str, Any]:
    body = {"prompt": text, "temperature": 0, "max_tokens": 12}
    answer = server.post("/v1/completions", body if model is None else body | {"model": model})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_every_adapter_is_listed_as_a_model(server: Running) -> None:
    listed = server.get("/v1/models").json()["data"]
    assert [entry["id"] for entry in listed] == list(MODELS)
    one = server.get(f"/v1/models/{NAME}:a2").json()
    assert one["id"] == f"{NAME}:a2"
    assert server.get(f"/v1/models/{NAME}:a4").status_code == 404


def test_a_request_chooses_by_the_name_of_its_model(
    server: Running, alone: dict[tuple[str, str], str]
) -> None:
    assert len({alone[name, TEXTS[0]] for name in MODELS}) == len(MODELS)
    for name in MODELS:
        answer = complete(server, name, TEXTS[0])
        assert answer["choices"][0]["text"] == alone[name, TEXTS[0]]
        assert answer["model"] == name
    unnamed = complete(server, None, TEXTS[0])
    assert (unnamed["model"], unnamed["choices"][0]["text"]) == (NAME, alone[NAME, TEXTS[0]])


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_an_unknown_adapter_is_an_unknown_model(server: Running, path: str) -> None:
    body = {"messages": [{"role": "user", "content": "一寸"}], "prompt": "一寸", "input": "一寸"}
    fields = {"chat/completions": "messages", "completions": "prompt", "responses": "input"}
    wanted = {fields[path]: body[fields[path]], "model": f"{NAME}:a4"}
    answer = server.post(f"/v1/{path}", wanted)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "'unscaled:a1'" in answer.json()["error"]["message"]


def test_chats_and_responses_choose_too(server: Running) -> None:
    chats = [chat(server, name) for name in (NAME, f"{NAME}:a1")]
    texts = [answer["choices"][0]["message"]["content"] for answer in chats]
    assert texts[0] != texts[1]
    body = {"input": "一寸", "temperature": 0, "max_output_tokens": 12, "model": f"{NAME}:a1"}
    answer = server.post("/v1/responses", body).json()
    assert answer["model"] == chats[1]["model"] == f"{NAME}:a1"
    assert answer["output"][0]["content"][0]["text"] == texts[1]


def chat(server: Running, name: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "一寸"}]
    body = {"messages": messages, "temperature": 0, "max_tokens": 12, "model": name}
    found: dict[str, Any] = server.post("/v1/chat/completions", body).json()
    return found


@pytest.mark.slow
def test_requests_of_all_adapters_under_load_get_their_own_answers(
    server: Running, alone: dict[tuple[str, str], str]
) -> None:
    # An odd step through the texts, so that every model meets every text.
    jobs = [(list(MODELS)[i % 4], TEXTS[(i // 4) % 4]) for i in range(REQUESTS)]
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda job: complete(server, *job), jobs))
    for job, answer in zip(jobs, answers, strict=True):
        assert answer["choices"][0]["text"] == alone[job]
