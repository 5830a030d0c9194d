"""Addresses as clients spell them, those of other servers, and the headers of every response."""

from __future__ import annotations

import socket
import time
import uuid

import httpx
import openai
import pytest

from issun.server.front import canonical
from tests.server.conftest import Running, embedded_server

NAME = "issun-embedded"
QUESTION = {"messages": [{"role": "user", "content": "山は?"}], "max_tokens": 3}
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("", "/"),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions/", CHAT),
        ("/chat/completions", CHAT),
        ("//chat//completions//", CHAT),
        ("/v1/v1/chat/completions", CHAT),
        ("/completions", "/v1/completions"),
        ("/models", "/v1/models"),
        ("/v1//models", "/v1/models"),
        ("/models/a/b", "/v1/models/a/b"),
        ("/responses", "/v1/responses"),
        ("/v1/tokenize", "/tokenize"),
        ("/v1/health/", "/health"),
        ("/v1", "/v1"),
        ("/page/main.js", "/page/main.js"),
        ("/completion", "/completion"),
        ("/v2/models", "/v2/models"),
    ],
)
def test_a_path_has_one_spelling(path: str, expected: str) -> None:
    assert canonical(path) == expected


@pytest.mark.parametrize(
    "path", [CHAT + "/", "/chat/completions", "/v1//chat/completions", "/v1/v1/chat/completions"]
)
def test_an_answer_comes_from_every_spelling(server: Running, path: str) -> None:
    found = server.post(path, QUESTION)  # redirects are not followed
    assert found.status_code == 200
    assert found.json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "/v1/v1"])
def test_the_client_s_base_url_may_be_spelt_otherwise(server: Running, base: str) -> None:
    client = openai.OpenAI(base_url=server.url + base, api_key="none", max_retries=0)
    found = client.chat.completions.create(model=NAME, **QUESTION)  # type: ignore[call-overload]
    assert found.usage.completion_tokens == 3
    assert client.models.retrieve(NAME).id == NAME


@pytest.mark.parametrize("name", ["other", "org/other", "org%2Fother", "%E5%B1%B1"])
def test_another_model_is_not_there(server: Running, name: str) -> None:
    found = server.get(f"/v1/models/{name}")
    assert found.status_code == 404
    assert found.json()["error"]["code"] == "model_not_found"
    assert NAME in found.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "part"),
    [
        ("POST", "/v1/embeddings", "This model has no embeddings"),
        ("POST", "/embeddings", "This model has no embeddings"),
        ("POST", "/api/embed", "This model has no embeddings"),
        ("POST", "/v1/audio/speech", "only handles text"),
        ("POST", "/v1/images/generations", "only handles text"),
        ("POST", "/v1/moderations", "does not score"),
        ("POST", "/v1/rerank", "does not score"),
        ("POST", "/api/chat", "not an Ollama server"),
        ("POST", "/api/generate", "not an Ollama server"),
        ("GET", "/api/tags", "not an Ollama server"),
        ("POST", "/v1/messages", "not an Anthropic server"),
        ("POST", "/completion", "not a llama.cpp or TGI server"),
        ("GET", "/props", "not a llama.cpp or TGI server"),
        ("POST", "/openai/deployments/x/chat/completions", "base URL /v1"),
        ("GET", "/v1/files", "This server stores nothing"),
        ("GET", "/v1/responses/resp_1", "This server stores nothing"),
        ("POST", "/v1/responses/resp_1/cancel", "This server stores nothing"),
        ("GET", "/version", ""),
        ("GET", "/v1", ""),
        ("POST", "/" + "x" * 5000, ""),
    ],
)
def test_unknown_paths_get_a_hint(server: Running, method: str, path: str, part: str) -> None:
    found = httpx.request(method, server.url + path, json=QUESTION, timeout=60)
    error = found.json()["error"]
    assert (found.status_code, error["code"]) == (404, "not_found")
    assert part in error["message"]
    assert f"This server has {CHAT}, /v1/completions" in error["message"]
    assert len(error["message"]) < 400


def test_the_client_raises_its_own_error_for_embeddings(server: Running) -> None:
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="no embeddings"):
        client.embeddings.create(model=NAME, input="山")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, {"POST"}),
        ("HEAD", "/completions", {"POST"}),
        ("DELETE", "/v1/models", {"GET", "HEAD"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("OPTIONS", CHAT, {"POST"}),
        ("PUT", "/tokenize/", {"POST"}),
    ],
)
def test_another_method_is_told_which_is_taken(
    server: Running, method: str, path: str, allow: set[str]
) -> None:
    found = httpx.request(method, server.url + path, timeout=60)
    assert found.status_code == 405
    assert set(found.headers["allow"].split(", ")) == allow


@pytest.mark.parametrize("path", ["/", "/v1/models", "/models/", "/health", "/tokenizer_info"])
def test_a_head_has_the_headers_and_no_body(server: Running, path: str) -> None:
    found, whole = httpx.head(server.url + path), server.get(path)
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-type"] == whole.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/health"), ("GET", "/"), ("GET", "/nothing"), ("GET", CHAT), ("POST", CHAT)],
)
def test_every_response_has_an_id(server: Running, method: str, path: str) -> None:
    def ask(given: str | None) -> str:
        headers = {} if given is None else {"X-Request-Id": given}
        found = httpx.request(method, server.url + path, headers=headers, timeout=60)
        return str(found.headers["x-request-id"])

    for own in ("abc-123", str(uuid.uuid4()), "trace/1:2=@+."):
        assert ask(own) == own
    new = {ask(given) for given in (None, "", "a b", "x" * 129, '"', "<script>")}
    assert len(new) == 6
    assert all(found.startswith("req_") and len(found) == 36 for found in new)


def test_a_failure_has_an_id_too(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(server.service.metrics, "text", fail)
    found = server.get("/metrics", headers={"X-Request-Id": "mine"})
    assert (found.status_code, found.headers["x-request-id"]) == (500, "mine")
    with embedded_server(max_connections=1) as full:
        host, port = full.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as asking:  # and so not idle
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
            asking.sendall(head.encode())
            time.sleep(0.2)
            refused = full.get("/health")
    assert refused.status_code == 503
    assert refused.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("name", [None, "", NAME])
def test_no_name_is_the_model_that_is_served(server: Running, name: str | None) -> None:
    assert server.post(CHAT, QUESTION | {"model": name}).json()["model"] == NAME


def test_the_client_has_the_id(server: Running) -> None:
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    headers = {"X-Request-Id": "mine"}
    found = client.chat.completions.create(model=NAME, extra_headers=headers, **QUESTION)  # type: ignore[call-overload]
    assert found._request_id == "mine"
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        model=NAME, stream=True, extra_headers=headers, **QUESTION
    )
    assert stream.response.headers["x-request-id"] == "mine"
    stream.close()


def test_a_key_is_asked_for_at_every_spelling() -> None:
    with embedded_server(api_key="k") as server:
        for path in (CHAT, "/chat/completions", "//v1/models", "/v1/metrics", "/nothing"):
            assert server.get(path).status_code == 401
            assert server.get(path).headers["www-authenticate"] == "Bearer"
        for path in ("/health/", "/v1/health", "//"):
            assert server.get(path).status_code == 200
