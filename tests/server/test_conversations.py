"""Conversations that take turns keep their KV caches."""

from __future__ import annotations

import pytest

from tests.server.conftest import Running, embedded_server

_TALKS = ("青森県", "岩手県", "宮城県", "秋田県", "山形県", "福島県")
_QUESTION = "最初の質問は何ですか?"
_TURNS = 5


def cached_share(server: Running, talks: int) -> float:
    """The share of prompt tokens found in the cache while `talks` conversations take turns."""
    histories = [
        [{"role": "user", "content": f"{place}の県庁所在地は?"}] for place in _TALKS[:talks]
    ]
    tokens = cached = 0
    for _ in range(_TURNS):
        for messages in histories:
            body = {"messages": messages, "max_tokens": 24, "temperature": 0}
            answer = server.post("/v1/chat/completions", body).json()
            tokens += answer["usage"]["prompt_tokens"]
            cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            messages.append(answer["choices"][0]["message"])
            messages.append({"role": "user", "content": _QUESTION})
    return cached / tokens


def test_prompts_with_the_same_role_do_not_evict_a_conversation() -> None:
    role = {"role": "system", "content": "あなたは日本の地理に詳しい先生です。" * 5}
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": "はい。"}] * 4
    body = {"messages": [role, *turns, turns[0]], "max_tokens": 4, "temperature": 0}
    with embedded_server(slots=4) as server:
        server.post("/v1/chat/completions", body)
        for place in _TALKS[:3]:  # the conversation is the least recently used of four, then
            other = {"role": "user", "content": f"{place}の県庁所在地は?"}
            server.post("/v1/chat/completions", body | {"messages": [role, other]})
        body["messages"] = [role, *turns, *turns[:2], turns[0]]
        usage = server.post("/v1/chat/completions", body).json()["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > 0.7 * usage["prompt_tokens"]


@pytest.mark.sampled
@pytest.mark.parametrize("talks", [1, 2, 4, 6])
def test_alternating_conversations_keep_their_cache(talks: int) -> None:
    with embedded_server(slots=8) as server:
        assert cached_share(server, talks) >= 0.45
