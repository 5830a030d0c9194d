"""Keyboard shortcuts, and the dialog that lists them."""

from __future__ import annotations

from typing import Any

from tests.page.driving import answer_with, ask, box, texts, wait_for_end


def test_the_list_names_every_shortcut(page: Any) -> None:
    dialog = page.get_by_test_id("shortcuts")
    page.keyboard.press("Control+/")
    dialog.wait_for()
    rows = dialog.locator("tr").all_inner_texts()
    assert len(rows) == 8
    assert any("会話を検索" in row and "Ctrl" in row and "K" in row for row in rows)
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.get_by_test_id("open-shortcuts").click()
    dialog.wait_for()
    page.locator("#shortcuts-close").click()
    dialog.wait_for(state="hidden")


def test_the_list_has_the_keys_that_send(page: Any) -> None:
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("enter-select").select_option("mod")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    first = page.get_by_test_id("shortcuts").locator("tr").first
    assert first.locator("kbd").all_inner_texts() == ["Ctrl", "Enter"]


def test_search_new_conversation_and_sidebar(page: Any) -> None:
    answer_with(page, "富士山です。")
    ask(page, "一番高い山は?")
    wait_for_end(page)
    page.keyboard.press("Control+b")
    page.locator("#sidebar").wait_for(state="hidden")
    page.keyboard.press("Control+k")
    page.locator("#sidebar").wait_for()
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("Control+Shift+O")
    page.get_by_test_id("welcome").wait_for()
    assert page.evaluate("document.activeElement.id") == "message-input"


def test_escape_stops_an_answer(page: Any) -> None:
    page.route("**/v1/chat/completions", lambda route: None)  # no answer comes
    ask(page, "一番高い山は?")
    page.get_by_test_id("stop").wait_for()
    page.keyboard.press("Control+/")
    page.keyboard.press("Escape")  # closes the list alone
    page.get_by_test_id("shortcuts").wait_for(state="hidden")
    assert page.get_by_test_id("stop").is_visible()
    page.keyboard.press("Escape")
    page.get_by_test_id("stop").wait_for(state="hidden")
    page.get_by_test_id("failure").wait_for()


def test_the_arrow_up_edits_the_last_message(page: Any) -> None:
    answer_with(page, "富士山です。")
    box(page).press("ArrowUp")
    assert box(page).input_value() == ""
    ask(page, "一番高い山は?")
    wait_for_end(page)
    box(page).fill("下書き")
    box(page).press("ArrowUp")
    assert box(page).input_value() == "下書き"
    box(page).fill("")
    box(page).press("ArrowUp")
    assert box(page).input_value() == "一番高い山は?"
    box(page).press("Escape")
    assert box(page).input_value() == ""
    assert texts(page, "user") == ["一番高い山は?"]


def test_no_shortcut_works_during_a_conversion_or_a_dialog(page: Any) -> None:
    page.get_by_test_id("open-settings").click()
    page.keyboard.press("Control+b")
    page.keyboard.press("Escape")
    assert page.locator("#sidebar").is_visible()
    box(page).evaluate(
        """box => box.dispatchEvent(new KeyboardEvent("keydown",
            { key: "b", ctrlKey: true, bubbles: true, isComposing: true }))"""
    )
    assert page.locator("#sidebar").is_visible()
