"""Answers: continuing them, how fast they come, and how much of the context they take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.page.driving import answer_with, ask, respond, take_over, texts, wait_for_end
from tests.server.conftest import Running

QUESTION = "日本で一番高い山は?"


def _set(page: Any, **values: str) -> None:
    page.get_by_test_id("open-settings").click()
    for name, value in values.items():
        page.get_by_test_id(f"setting-{name}").fill(value)
    page.get_by_test_id("settings-close").click()


@pytest.mark.slow
def test_a_cut_answer_is_continued_to_the_whole(page: Any, server: Running) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    answer = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    _set(page, temperature="0", max_tokens="3")
    ask(page, QUESTION)
    wait_for_end(page)
    (begun,) = texts(page, "assistant")
    assert answer.startswith(begun)
    assert begun != answer
    with page.expect_request("**/v1/chat/completions") as caught:
        page.get_by_test_id("continue").click()
    sent = json.loads(caught.value.post_data)["messages"]
    assert sent[-1] == {"role": "assistant", "content": begun}
    wait_for_end(page)
    while page.get_by_test_id("continue").count():
        page.get_by_test_id("continue").click()
        wait_for_end(page)
    assert texts(page, "assistant") == [answer]
    page.reload()
    page.get_by_test_id("regenerate").wait_for()
    assert texts(page, "assistant") == [answer]
    assert page.get_by_test_id("continue").count() == 0


@pytest.mark.slow
def test_a_stopped_answer_can_be_continued(page: Any) -> None:
    answer_with(page, "富士山は", end="length")
    ask(page, QUESTION)
    wait_for_end(page)
    page.reload()
    page.get_by_test_id("continue").wait_for()
    assert "最大の長さ" in page.get_by_test_id("message-assistant").inner_text()
    take_over(page)
    page.route("**/v1/chat/completions", lambda route: None)  # no answer comes
    page.get_by_test_id("continue").click()
    page.get_by_test_id("stop").click()
    page.get_by_test_id("continue").wait_for()
    assert texts(page, "assistant") == ["富士山は"]
    take_over(page)
    answer_with(page, "日本一", "です。")
    page.get_by_test_id("continue").click()
    wait_for_end(page)
    assert texts(page, "assistant") == ["富士山は日本一です。"]
    assert page.get_by_test_id("continue").count() == 0


def test_a_continuation_that_fails_is_tried_again_and_loses_nothing(page: Any) -> None:
    answer_with(page, "富士山は", end="length")
    ask(page, QUESTION)
    wait_for_end(page)
    take_over(page)
    respond(page, [{"error": {"message": "no", "type": "x", "param": None, "code": "y"}}])
    page.get_by_test_id("continue").click()
    page.get_by_test_id("failure").wait_for()
    assert texts(page, "assistant") == ["富士山は"]
    take_over(page)
    answer_with(page, "日本一です。")
    page.get_by_test_id("retry").click()
    wait_for_end(page)
    assert texts(page, "assistant") == ["富士山は日本一です。"]


def test_an_answer_with_nothing_to_add_is_whole(page: Any) -> None:
    answer_with(page, "富士山です。", end="length")
    ask(page, QUESTION)
    wait_for_end(page)
    take_over(page)
    answer_with(page)
    page.get_by_test_id("continue").click()
    page.get_by_test_id("continue").wait_for(state="detached")
    wait_for_end(page)
    assert texts(page, "assistant") == ["富士山です。"]


@pytest.mark.sampled
@pytest.mark.parametrize(("tokens", "shown"), [(19, ""), (20, "45.6 トークン/秒")])
def test_the_speed_is_shown_from_20_tokens_on(page: Any, tokens: int, shown: str) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": tokens, "total_tokens": 30 + tokens}
    answer_with(page, *("山" * 10), usage=usage, speed=45.6)
    ask(page, QUESTION)
    wait_for_end(page)
    assert page.get_by_test_id("speed").inner_text() == shown


@pytest.mark.slow
def test_a_short_answer_of_the_model_shows_no_speed_but_a_long_one_does(page: Any) -> None:
    ask(page, "17足す8は?")
    wait_for_end(page)
    assert page.get_by_test_id("speed").inner_text() == ""

    def longer(route: Any) -> None:
        body = json.loads(route.request.post_data)
        route.continue_(post_data=json.dumps(body | {"min_tokens": 60, "max_tokens": 60}))

    page.route("**/v1/chat/completions", longer)
    ask(page, QUESTION)
    wait_for_end(page)
    assert "トークン/秒" in page.get_by_test_id("speed").inner_text()


@pytest.mark.slow
def test_the_gauge_has_the_tokens_of_prompt_and_answer(page: Any, server: Running) -> None:
    gauge, meter = page.get_by_test_id("context"), page.get_by_test_id("context-meter")
    assert gauge.is_hidden()
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    used = server.post("/v1/chat/completions", body).json()["usage"]["total_tokens"]
    _set(page, temperature="0")
    ask(page, QUESTION)
    wait_for_end(page)
    assert gauge.inner_text() == f"{used} / 512 トークン"
    assert meter.evaluate("meter => [meter.value, meter.max]") == [used, 512]
    page.reload()
    gauge.wait_for()
    assert gauge.inner_text() == f"{used} / 512 トークン"
    ask(page, "ありがとう")
    wait_for_end(page)
    assert meter.evaluate("meter => meter.value") > used
    page.get_by_test_id("new-conversation").click()
    gauge.wait_for(state="hidden")


def test_a_nearly_full_context_looks_different(page: Any) -> None:
    meter = page.get_by_test_id("context-meter")
    for used, nearly_full in ((400, False), (450, True)):
        usage = {"prompt_tokens": used - 5, "completion_tokens": 5, "total_tokens": used}
        answer_with(page, "富士山です。", usage=usage)
        ask(page, QUESTION)
        wait_for_end(page)
        take_over(page)
        assert meter.evaluate("meter => meter.value > meter.high") == nearly_full
