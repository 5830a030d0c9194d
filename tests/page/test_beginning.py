"""What a person sees first: the browser's language, the model, and questions to begin with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from issun.runtime import Model
from tests.conftest import Bundles
from tests.page.driving import box, texts, wait_for_end
from tests.server.conftest import Running, running


@pytest.mark.parametrize(
    ("locale", "language", "send"),
    [
        ("ja-JP", "ja", "送信"),
        ("ja", "ja", "送信"),
        ("en-US", "en", "Send"),
        ("de-DE", "en", "Send"),  # there is no German
    ],
)
def test_the_language_is_that_of_the_browser(
    browser: Any, server: Running, locale: str, language: str, send: str
) -> None:
    context = browser.new_context(locale=locale)
    page = context.new_page()
    page.goto(server.url)
    assert page.evaluate("document.documentElement.lang") == language
    assert page.get_by_test_id("send").inner_text() == send
    context.close()


def test_a_chosen_language_is_kept_against_the_browsers(page: Any) -> None:
    page.get_by_test_id("open-settings").click()
    select = page.get_by_test_id("language-select")
    assert select.input_value() == "auto"
    select.select_option("en")
    page.reload()
    assert page.evaluate("document.documentElement.lang") == "en"
    page.get_by_test_id("open-settings").click()
    select.select_option("auto")
    assert page.evaluate("document.documentElement.lang") == "ja"


def test_the_model_is_announced_as_a_demonstration(page: Any, server: Running) -> None:
    info = server.get("/v1/models").json()["data"][0]
    assert info["issun"]["demonstration"] is True
    assert info["issun"]["family"] == "gpt2"
    welcome = page.get_by_test_id("welcome")
    page.get_by_test_id("demonstration").wait_for()
    shown = welcome.inner_text()
    for part in ("issun-embedded", "int8", "512 トークン", "デモ用", "できること", "できないこと"):
        assert part in shown
    assert page.get_by_test_id("example").count() == 4


def test_an_example_is_asked_and_the_draft_stays(page: Any) -> None:
    box(page).fill("書きかけ")
    page.get_by_test_id("example").filter(has_text="フランス").click()
    wait_for_end(page)
    assert texts(page, "user") == ["フランスの首都は?"]
    assert "パリ" in texts(page, "assistant")[0]
    assert page.get_by_test_id("welcome").count() == 0
    assert box(page).input_value() == "書きかけ"


def test_every_example_is_answered_well(page: Any) -> None:
    expected = {"山": "富士山", "首都": "パリ", "足す": "25", "誰": "モデル"}
    page.get_by_test_id("example").first.wait_for()
    for number, (asked, answer) in enumerate(expected.items()):
        if number:
            page.get_by_test_id("new-conversation").click()
        page.get_by_test_id("example").filter(has_text=asked).click()
        wait_for_end(page)
        assert answer in texts(page, "assistant")[0], asked


def test_the_server_knows_another_model_from_the_demonstration(bundle: Bundles) -> None:
    with Model.load(bundle("head-8"), threads=1) as model, running(model) as other:
        info = other.get("/v1/models").json()["data"][0]
    assert info["id"] == "head-8"
    assert info["issun"]["demonstration"] is False


def test_another_model_is_no_demonstration(page: Any, server: Running) -> None:
    found = server.get("/v1/models").json()
    found["data"][0]["id"] = "japanese-gpt-1b"
    found["data"][0]["issun"] |= {"demonstration": False, "precision": "int4", "context": 1024}
    page.route("**/v1/models", lambda route: route.fulfill(json=found))
    page.reload()
    page.get_by_test_id("example").first.wait_for()
    assert page.get_by_test_id("demonstration").is_hidden()
    assert (
        "japanese-gpt-1b（int4、コンテキスト 1024 トークン）"
        in page.get_by_test_id("welcome").inner_text()
    )
    examples = page.get_by_test_id("example").all_inner_texts()
    assert len(examples) == 4
    assert not any("フランス" in text for text in examples)


def test_the_beginning_is_seen_on_a_small_phone(page: Any) -> None:
    page.set_viewport_size({"width": 320, "height": 480})
    page.get_by_test_id("example").first.wait_for()
    assert page.locator("#messages").evaluate("log => log.scrollTop") == 0
    assert page.get_by_test_id("welcome").locator("h2").is_visible()
    page.get_by_test_id("to-bottom").wait_for(state="hidden")
    page.get_by_test_id("example").last.click()
    with page.expect_request("**/v1/chat/completions") as caught:
        page.get_by_test_id("regenerate").click()
    assert json.loads(caught.value.post_data)["messages"][0]["content"] == "あなたは誰ですか?"


def test_the_first_load_is_small_and_comes_from_the_server_alone(
    browser: Any, server: Running
) -> None:
    context = browser.new_context()
    page = context.new_page()
    responses: list[Any] = []

    def keep(response: Any) -> None:
        responses.append(response)

    page.on("response", keep)
    page.goto(server.url)
    page.get_by_test_id("example").first.wait_for()
    assert {response.url[: len(server.url)] for response in responses} == {server.url}
    sizes = {response.url: len(response.body()) for response in responses}
    assert len(sizes) > 30
    assert sum(sizes.values()) < 150_000
    context.close()
