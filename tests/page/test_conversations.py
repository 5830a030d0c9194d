"""Conversations on the chat page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.page.driving import answer_with, ask, box, respond, take_over, texts, wait_for_end


def test_a_question_is_answered_and_a_reload_keeps_it(page: Any) -> None:
    ask(page, "日本で一番高い山は?")
    wait_for_end(page)
    assert texts(page, "user") == ["日本で一番高い山は?"]
    (answer,) = texts(page, "assistant")
    assert "富士山" in answer
    page.reload()
    page.get_by_test_id("message-assistant").wait_for()
    assert texts(page, "assistant") == [answer]
    assert page.evaluate("document.documentElement.lang") == "ja"


def end_composition(page: Any, *, key_code: int) -> None:
    """End a composition, and press Enter in the same task."""
    box(page).evaluate(
        """(box, keyCode) => {
          box.dispatchEvent(new CompositionEvent("compositionstart"));
          box.dispatchEvent(new CompositionEvent("compositionend"));
          box.dispatchEvent(new KeyboardEvent("keydown",
            { key: "Enter", bubbles: true, cancelable: true, keyCode }));
        }""",
        key_code,
    )


def test_enter_right_after_a_composition_sends(page: Any) -> None:
    box(page).fill("富士山")
    end_composition(page, key_code=13)
    wait_for_end(page)
    assert texts(page, "user") == ["富士山"]


def test_enter_during_a_composition_does_not_send(page: Any) -> None:
    line = page.context.new_cdp_session(page)
    box(page).click()
    line.send(
        "Input.imeSetComposition", {"text": "ふじさん", "selectionStart": 4, "selectionEnd": 4}
    )
    enter = {"key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229}
    line.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    page.wait_for_timeout(100)
    assert texts(page, "user") == []
    line.send("Input.insertText", {"text": "富士山"})
    # Safari's order: the composition has ended when the key arrives.
    end_composition(page, key_code=229)
    page.wait_for_timeout(100)
    assert texts(page, "user") == []
    for mark in ("isComposing: true", "keyCode: 229"):
        box(page).evaluate(
            f"""box => box.dispatchEvent(new KeyboardEvent("keydown",
                {{ key: "Enter", bubbles: true, cancelable: true, {mark} }}))"""
        )
        assert texts(page, "user") == [], mark
    assert box(page).input_value() == "富士山"
    box(page).press("Shift+Enter")
    assert box(page).input_value() == "富士山\n"
    assert texts(page, "user") == []
    box(page).press("Enter")
    wait_for_end(page)
    assert texts(page, "user") == ["富士山"]


@pytest.mark.slow
def test_a_reader_who_scrolls_up_a_little_is_left_there(page: Any) -> None:
    page.set_viewport_size({"width": 500, "height": 420})
    page.route("**/v1/chat/completions", _longer)
    ask(page, "こんにちは")
    log = page.locator("#messages")
    page.wait_for_function("""() => {
      const log = document.querySelector("#messages");
      return log.scrollHeight > log.clientHeight + 80;
    }""")
    place = log.evaluate("log => { log.scrollTop -= 20; return log.scrollTop; }")
    length = len(texts(page, "assistant")[0])
    page.wait_for_timeout(300)
    assert len(texts(page, "assistant")[0]) > length
    assert log.evaluate("log => log.scrollTop") == place
    page.locator("#to-bottom").click()
    page.wait_for_timeout(300)
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 2
    wait_for_end(page)


def test_stop_keeps_what_has_come(page: Any) -> None:
    page.route("**/v1/chat/completions", _longer)
    ask(page, "こんにちは")
    page.get_by_test_id("message-assistant").get_by_test_id("message-text").wait_for()
    page.wait_for_function(
        "() => document.querySelector('[data-testid=message-assistant] [data-testid=message-text]')"
        ".textContent.length > 3"
    )
    page.get_by_test_id("stop").click()
    wait_for_end(page)
    (kept,) = texts(page, "assistant")
    assert len(kept) > 3
    page.unroute("**/v1/chat/completions")
    page.reload()
    page.get_by_test_id("message-assistant").wait_for()
    assert texts(page, "assistant") == [kept]


def _longer(route: Any) -> None:
    """Ask for an answer that takes long enough to be stopped."""
    body = json.loads(route.request.post_data)
    route.continue_(post_data=json.dumps(body | {"min_tokens": 400, "max_tokens": 400}))


def test_a_role_is_sent_from_the_next_message_on(page: Any) -> None:
    page.get_by_test_id("role-select").select_option("mascot")
    with page.expect_request("**/v1/chat/completions") as caught:
        ask(page, "日本で一番広い湖は?")
    wait_for_end(page)
    sent = json.loads(caught.value.post_data)["messages"]
    assert sent[0]["role"] == "system"
    assert "なのだ" in sent[0]["content"]
    assert "琵琶湖" in texts(page, "assistant")[0]
    page.get_by_test_id("role-select").select_option("none")
    with page.expect_request("**/v1/chat/completions") as caught:
        ask(page, "ありがとう")
    wait_for_end(page)
    assert [m["role"] for m in json.loads(caught.value.post_data)["messages"]] == [
        "user",
        "assistant",
        "user",
    ]


def test_markup_stays_text(page: Any) -> None:
    attack = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"

    answer_with(page, attack)
    ask(page, attack)
    wait_for_end(page)
    assert texts(page, "user") == [attack]
    assert texts(page, "assistant") == [attack]
    assert page.locator("[data-testid=messages] img, [data-testid=messages] script").count() == 0
    assert page.title() != "taken"


def test_edit_regenerate_and_reset(page: Any) -> None:
    ask(page, "フランスの首都は?")
    wait_for_end(page)
    page.get_by_test_id("regenerate").click()
    wait_for_end(page)
    assert "パリ" in texts(page, "assistant")[0]
    page.get_by_test_id("edit").click()
    assert box(page).input_value() == "フランスの首都は?"
    ask(page, "イタリアの首都は?")
    wait_for_end(page)
    assert texts(page, "user") == ["イタリアの首都は?"]
    assert "ローマ" in texts(page, "assistant")[0]
    page.get_by_test_id("reset").click()
    page.get_by_test_id("message-user").wait_for(state="detached")


def test_conversations_are_listed_and_kept_apart(page: Any) -> None:
    ask(page, "フランスの首都は?")
    wait_for_end(page)
    page.get_by_test_id("new-conversation").click()
    assert texts(page, "user") == []
    ask(page, "3足す5は?")
    wait_for_end(page)
    assert page.get_by_test_id("conversation").count() == 2
    page.get_by_test_id("conversation").filter(has_text="フランス").click()
    assert texts(page, "user") == ["フランスの首都は?"]


def test_an_error_keeps_the_message(page: Any) -> None:
    error = {"error": {"message": "no", "type": "x", "param": None, "code": "y"}}
    respond(page, [error])
    ask(page, "聞こえますか")
    page.get_by_test_id("failure").wait_for()
    assert texts(page, "user") == ["聞こえますか"]
    take_over(page)
    page.get_by_test_id("retry").click()
    wait_for_end(page)
    assert len(texts(page, "assistant")) == 1


@pytest.mark.sampled
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_window(page: Any, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    ask(page, "富士山は日本で一番高い山です。" * 8 + "x" * 60)
    wait_for_end(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("send", "message-input"):
        place = page.get_by_test_id(name).bounding_box()
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= width


def test_settings_language_and_theme_are_kept(page: Any) -> None:
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("language-select").select_option("en")
    page.get_by_test_id("theme-select").select_option("dark")
    page.get_by_test_id("setting-temperature").fill("0")
    page.keyboard.press("Escape")
    page.reload()
    assert page.evaluate("document.documentElement.lang") == "en"
    with page.expect_request("**/v1/chat/completions") as caught:
        ask(page, "山は?")
    wait_for_end(page)
    assert json.loads(caught.value.post_data)["temperature"] == 0


def test_the_language_changes_without_the_server(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    assert page.get_by_test_id("send").inner_text() == "送信"
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("language-select").select_option("en")
    assert page.get_by_test_id("send").inner_text() == "Send"
    page.get_by_test_id("language-select").select_option("ja")
    assert page.get_by_test_id("send").inner_text() == "送信"
    assert not [url for url in asked if url.endswith((".js", ".json"))]
