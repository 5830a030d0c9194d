"""Where the parts of the page are: on a laptop, on a phone, in dialogs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.page.driving import ask, wait_for_end

PHONE = {"width": 390, "height": 760}


def opacity(button: Any) -> float:
    return float(button.evaluate("button => getComputedStyle(button).opacity"))


def shown_opacity(page: Any, button: Any, wanted: str) -> None:
    """Wait until the transition has ended at `wanted`."""
    page.wait_for_function(
        "([button, wanted]) => getComputedStyle(button).opacity === wanted",
        arg=[button.element_handle(), wanted],
    )


@pytest.mark.slow
def test_the_sidebar_is_folded_and_stays_so(page: Any) -> None:
    sidebar, opener = page.locator("#sidebar"), page.get_by_test_id("open-drawer")
    assert opener.is_hidden()
    width = page.locator("#main").bounding_box()["width"]
    page.get_by_test_id("close-sidebar").click()
    sidebar.wait_for(state="hidden")
    assert page.locator("#main").bounding_box()["width"] > width + 200
    page.reload()
    opener.wait_for()
    assert sidebar.is_hidden()
    opener.click()
    sidebar.wait_for()
    page.reload()
    sidebar.wait_for()


@pytest.mark.sampled
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_has_one_line_of_head(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.get_by_test_id("role-select").select_option("samurai")
    centres = [
        place["y"] + place["height"] / 2
        for name in ("open-drawer", "role-select", "reset", "open-settings")
        if (place := page.get_by_test_id(name).bounding_box())
    ]
    assert len(centres) == 4
    assert max(centres) - min(centres) < 2
    assert page.locator("#messages").bounding_box()["y"] < 60
    assert page.get_by_test_id("role-select").bounding_box()["width"] > 80


def test_the_drawer_of_a_phone_opens_and_closes(page: Any) -> None:
    page.set_viewport_size(PHONE)
    sidebar = page.locator("#sidebar")
    sidebar.wait_for(state="hidden")
    page.get_by_test_id("open-drawer").click()
    sidebar.wait_for()
    assert page.locator("#main").evaluate("main => main.inert")
    page.keyboard.press("Escape")
    sidebar.wait_for(state="hidden")
    assert not page.locator("#main").evaluate("main => main.inert")
    page.set_viewport_size({"width": 1100, "height": 800})
    sidebar.wait_for()


def test_questions_and_answers_look_different(page: Any) -> None:
    ask(page, "日本で一番高い山は?")
    wait_for_end(page)
    looks = {}
    for who in ("user", "assistant"):
        body = page.get_by_test_id(f"message-{who}").get_by_test_id("message-text")
        place = body.bounding_box()
        color = body.evaluate("body => getComputedStyle(body).backgroundColor")
        looks[who] = (place["x"], color)
    assert looks["user"][0] > looks["assistant"][0] + 100
    assert looks["user"][1] != looks["assistant"][1]


def test_copy_and_edit_appear_on_hover_and_focus(page: Any) -> None:
    ask(page, "日本で一番高い山は?")
    wait_for_end(page)
    question = page.get_by_test_id("message-user")
    copy, edit = question.get_by_test_id("copy"), question.get_by_test_id("edit")
    page.get_by_test_id("title").hover()
    shown_opacity(page, copy, "0")
    assert opacity(edit) == 0
    assert opacity(page.get_by_test_id("regenerate")) == 1
    question.hover()
    shown_opacity(page, copy, "1")
    assert opacity(edit) == 1
    page.get_by_test_id("title").hover()
    shown_opacity(page, copy, "0")
    edit.focus()
    shown_opacity(page, edit, "1")


def test_a_touch_screen_always_shows_copy_and_edit(browser: Any, server: Any) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.url)
    ask(page, "日本で一番高い山は?")
    wait_for_end(page)
    for name in ("copy", "edit"):
        assert opacity(page.get_by_test_id("message-user").get_by_test_id(name)) == 1
    context.close()


@pytest.mark.sampled
@pytest.mark.parametrize(("width", "height"), [(1100, 800), (800, 600), (390, 660), (320, 480)])
def test_the_settings_have_a_foot_that_stays(page: Any, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.get_by_test_id("open-settings").click()
    dialog, close = page.get_by_test_id("settings"), page.get_by_test_id("settings-close")
    fields = page.locator("#settings-fields")
    for place in (0, 10_000):
        fields.evaluate("(fields, top) => { fields.scrollTop = top; }", place)
        for part in (dialog, close):
            found = part.bounding_box()
            assert found["x"] >= 0
            assert found["y"] >= 0
            assert found["x"] + found["width"] <= width
            assert found["y"] + found["height"] <= height
    if height == 800:  # nothing has to be scrolled
        for language in ("en", "ja"):
            page.get_by_test_id("language-select").select_option(language)
            left = "fields => fields.scrollHeight - fields.clientHeight"
            assert fields.evaluate(left) <= 0, language
    close.click()
    dialog.wait_for(state="hidden")


def test_buttons_that_destroy_look_so(page: Any) -> None:
    ask(page, "日本で一番高い山は?")
    wait_for_end(page)
    color = "button => getComputedStyle(button).color"
    plain = page.get_by_test_id("open-settings").evaluate(color)
    for name in ("reset", "delete-all", "delete"):
        red, green, blue = _rgb(page.get_by_test_id(name).evaluate(color))
        assert red > 2 * max(green, blue), name
        assert page.get_by_test_id(name).evaluate(color) != plain
    page.get_by_test_id("delete-all").click()
    red, green, blue = _rgb(
        page.locator("#ask-ok").evaluate("button => getComputedStyle(button).backgroundColor")
    )
    assert red > 2 * max(green, blue)
    page.keyboard.press("Escape")
    assert page.get_by_test_id("conversation").count() == 1


def _rgb(color: str) -> list[int]:
    return [int(part) for part in color.strip("rgb()").split(",")]


def test_there_is_a_role_for_every_way_of_speaking_of_the_model(page: Any) -> None:
    select = page.get_by_test_id("role-select")
    options = select.locator("option").evaluate_all("options => options.map(o => o.value)")
    assert options == ["none", "mascot", "polite", "kansai", "friend", "samurai", "own"]
    select.select_option("samurai")
    assert "ござる" in select.get_attribute("title")
    select.select_option("own")
    text = page.get_by_test_id("role-text")
    assert "ござる" in text.input_value()  # to be changed
    text.fill("あなたは博士です。")
    select.select_option("friend")
    text.wait_for(state="hidden")
    select.select_option("own")
    assert text.input_value() == "あなたは博士です。"
