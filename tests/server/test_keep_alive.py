"""Streams that have nothing to say for a while send comments, which clients skip."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from issun.runtime.errors import ParameterError
from issun.server.options import ServerOptions
from tests.server.conftest import Running, embedded_server

QUESTION = {"messages": [{"role": "user", "content": "日本で一番高い山は?"}], "temperature": 0}
BODIES = {
    "/v1/chat/completions": QUESTION | {"stream": True},
    "/v1/completions": {"prompt": "日本の", "stream": True, "max_tokens": 5},
}
COMMENT = ": keep-alive"
INTERVAL = 0.1


@contextmanager
def slow(server: Running, seconds: float) -> Iterator[None]:
    """Let every pass through the model take `seconds` more."""
    decoder = server.service.model.decoder
    forward = decoder.forward

    def late(*args: Any, **more: Any) -> Any:
        time.sleep(seconds)
        return forward(*args, **more)

    decoder.forward = late  # type: ignore[method-assign]
    try:
        yield
    finally:
        decoder.forward = forward  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def patient() -> Iterator[Running]:
    with embedded_server(keep_alive=INTERVAL, slots=1) as found:
        yield found


def lines_of(server: Running, path: str, **more: Any) -> list[tuple[float, str]]:
    """The lines of a stream, each with the second at which it came."""
    started = time.monotonic()
    with httpx.stream("POST", server.url + path, json=BODIES[path] | more, timeout=60) as found:
        return [(time.monotonic() - started, line) for line in found.iter_lines() if line]


@pytest.mark.parametrize("path", BODIES)
def test_comments_come_while_a_prompt_is_read_and_between_slow_tokens(
    patient: Running, path: str
) -> None:
    with slow(patient, 3.5 * INTERVAL):
        found = lines_of(patient, path, max_tokens=3)
    times, lines = zip(*found, strict=True)
    assert lines[0] == COMMENT
    before = lines.index(next(line for line in lines if line.startswith("data: ")))
    assert before >= 2  # the prompt took 3.5 intervals
    assert 7 <= lines.count(COMMENT) <= times[-1] / INTERVAL  # and so did each of two tokens
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("path", BODIES)
def test_comments_come_while_a_request_waits(patient: Running, path: str) -> None:
    with slow(patient, INTERVAL):
        busy = threading.Thread(
            target=lambda: patient.post("/v1/completions", {"prompt": "山", "max_tokens": 8})
        )
        busy.start()
        while not patient.service.scheduler.running:
            time.sleep(0.01)
        lines = [line for _, line in lines_of(patient, path, max_tokens=1)]
        busy.join()
    assert lines[:4] == [COMMENT] * 4
    assert lines[-1] == "data: [DONE]"


def test_a_quick_stream_has_none(server: Running) -> None:
    assert server.service.options.keep_alive == 5
    for path in BODIES:
        assert COMMENT not in [line for _, line in lines_of(server, path)]


def test_the_client_skips_them(patient: Running) -> None:
    client = openai.OpenAI(base_url=patient.url + "/v1", api_key="none", max_retries=0)
    with slow(patient, 2.5 * INTERVAL):
        chunks = client.chat.completions.create(  # type: ignore[call-overload]
            model="issun-embedded", stream=True, max_tokens=4, **QUESTION
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    whole = patient.post("/v1/chat/completions", QUESTION | {"max_tokens": 4}).json()
    assert text == whole["choices"][0]["message"]["content"] != ""


def test_a_client_that_goes_during_the_wait_is_given_up(patient: Running) -> None:
    with slow(patient, 2.5 * INTERVAL):
        path = "/v1/chat/completions"
        with httpx.stream("POST", patient.url + path, json=BODIES[path], timeout=60) as found:
            assert next(found.iter_lines()) == COMMENT
    deadline = time.monotonic() + 10
    while patient.service.scheduler.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not patient.service.scheduler.running
    assert lines_of(patient, path, max_tokens=1)[-1][1] == "data: [DONE]"


@pytest.mark.parametrize("path", BODIES)
def test_a_server_without_time_limits_sends_none(path: str) -> None:
    endless = dict.fromkeys(("keep_alive", "body_timeout", "deadline"), math.inf)
    with embedded_server(**endless, slots=1) as server, slow(server, INTERVAL):
        lines = [line for _, line in lines_of(server, path, max_tokens=3)]
    assert COMMENT not in lines
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_the_interval_is_above_nothing(seconds: float) -> None:
    with pytest.raises(ParameterError, match="keep_alive"):
        ServerOptions(keep_alive=seconds)
