"""Searching the conversations."""

from __future__ import annotations

from typing import Any

from tests.page.driving import answer_with, ask, take_over, wait_for_end

ANSWERS = {
    "フランスの首都は?": "パリです。",
    "イタリアの首都は?": "ローマです。",
    "好きな食べ物は?": "Ｒａｍｅｎとカレーです。",
}


def fill_in(page: Any) -> None:
    for question, answer in ANSWERS.items():
        page.get_by_test_id("new-conversation").click()
        answer_with(page, answer)
        ask(page, question)
        wait_for_end(page)
        take_over(page)


def names(page: Any) -> list[str]:
    found: list[str] = page.get_by_test_id("conversation").locator(".name").all_inner_texts()
    return found


def test_titles_and_messages_are_searched(page: Any) -> None:
    fill_in(page)
    box = page.get_by_test_id("search")
    assert len(names(page)) == 3
    for query, found in {
        "首都": ["イタリアの首都は?", "フランスの首都は?"],
        "ぱり": ["フランスの首都は?"],  # kana, width and case make no difference
        "ﾛｰﾏ": ["イタリアの首都は?"],
        "ramen": ["好きな食べ物は?"],
        "首都 ローマ": ["イタリアの首都は?"],  # all words
        "": list(reversed(ANSWERS)),
    }.items():
        box.fill(query)
        assert names(page) == found, query
        assert page.get_by_test_id("no-match").is_hidden()
    box.fill("ドイツ")
    assert names(page) == []
    assert page.get_by_test_id("no-match").is_visible()
    page.keyboard.press("Escape")
    assert len(names(page)) == 3
    assert page.evaluate("document.activeElement.id") == "message-input"


def test_a_match_is_shown_where_it_is(page: Any) -> None:
    answer_with(page, "山\n\n" * 30)
    for question in ("最初の質問", "次の質問", "最後の質問"):
        ask(page, question)
        wait_for_end(page)
    page.get_by_test_id("search").fill("次の")
    row = page.get_by_test_id("conversation")
    assert "次の質問" in row.inner_text()
    row.click()
    marked = page.locator("#messages .found")
    assert "次の質問" in marked.inner_text()
    page.wait_for_timeout(200)  # nothing scrolls away again
    place, log = marked.bounding_box(), page.locator("#messages").bounding_box()
    assert log["y"] <= place["y"]
    assert place["y"] + place["height"] <= log["y"] + log["height"]
    page.get_by_test_id("search").fill("")
    row.click()
    marked.wait_for(state="detached")


def test_an_unfinished_conversion_is_not_searched(page: Any) -> None:
    fill_in(page)
    line = page.context.new_cdp_session(page)
    page.get_by_test_id("search").click()
    line.send("Input.imeSetComposition", {"text": "r", "selectionStart": 1, "selectionEnd": 1})
    page.wait_for_timeout(100)
    assert len(names(page)) == 3
    line.send("Input.insertText", {"text": "ローマ"})
    page.wait_for_function(
        "() => document.querySelectorAll('[data-testid=conversation]').length === 1"
    )


def test_a_new_conversation_ends_the_search(page: Any) -> None:
    fill_in(page)
    page.get_by_test_id("search").fill("ローマ")
    page.get_by_test_id("new-conversation").click()
    assert page.get_by_test_id("search").input_value() == ""
    assert len(names(page)) == 4
