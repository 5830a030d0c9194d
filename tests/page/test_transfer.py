"""Conversations are exported as JSON and Markdown, and imported from JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.page.driving import answer_with, ask, texts, wait_for_end

ANSWER = "パリです。\n\n- **花の都**"
ATTACK = "<img src=x onerror=\"document.title='taken'\">"


def two_conversations(page: Any) -> None:
    answer_with(page, ANSWER)
    ask(page, "フランスの首都は?")
    wait_for_end(page)
    page.get_by_test_id("new-conversation").click()
    page.get_by_test_id("role-select").select_option("samurai")
    ask(page, "a/b: 首都は?")
    wait_for_end(page)


def export(page: Any, what: str, kind: str) -> tuple[str, str]:
    """The name of the file that the page saves, and its text."""
    page.get_by_test_id("open-transfer").click()
    page.get_by_test_id(f"export-{what}").check()
    page.get_by_test_id(f"export-{kind}").check()
    with page.expect_download() as caught:
        page.get_by_test_id("export").click()
    page.get_by_test_id("transfer").wait_for(state="hidden")
    return caught.value.suggested_filename, Path(caught.value.path()).read_text(encoding="utf-8")


def load(page: Any, content: str | bytes, name: str = "issun.json") -> str:
    """Import a file; the notice."""
    for button in page.get_by_test_id("close-notice").all():
        button.click()
    page.get_by_test_id("open-transfer").click()
    data = content.encode() if isinstance(content, str) else content
    page.get_by_test_id("import").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": data}
    )
    page.get_by_test_id("transfer").wait_for(state="hidden")
    page.get_by_test_id("close-notice").wait_for()
    notice: str = page.get_by_test_id("notice").inner_text()
    return notice


def one(**changes: Any) -> str:
    conversation = {
        "id": "abc1",
        "title": None,
        "updated": 1_790_000_000_000,
        "role": {"preset": "none", "text": ""},
        "messages": [
            {"role": "user", "content": "こんにちは"},
            {"role": "assistant", "content": "こんにちは。"},
        ],
    }
    file = {"format": "issun-conversations", "version": 1}
    return json.dumps(file | {"conversations": [conversation | changes]})


def test_markdown_of_one_conversation(page: Any) -> None:
    two_conversations(page)
    name, text = export(page, "current", "markdown")
    assert name == "a b 首都は.md"
    assert text.startswith("# a/b: 首都は?\n\n")
    assert "ござる" in text
    assert f"## あなた\n\na/b: 首都は?\n\n## 一寸\n\n{ANSWER}\n" in text
    assert "フランス" not in text


def test_markdown_of_all(page: Any) -> None:
    two_conversations(page)
    name, text = export(page, "all", "markdown")
    assert name.startswith("issun-20")
    assert name.endswith(".md")
    assert text.count("\n---\n") == 1
    assert "# フランスの首都は?" in text


@pytest.mark.slow
def test_json_is_exported_and_imported_elsewhere(page: Any, browser: Any, server: Any) -> None:
    two_conversations(page)
    name, text = export(page, "all", "json")
    assert name.endswith(".json")
    file = json.loads(text)
    assert [len(each["messages"]) for each in file["conversations"]] == [2, 2]
    # Here everything is there already.
    assert "0 件" in load(page, text)
    assert page.get_by_test_id("conversation").count() == 2
    context = browser.new_context(locale="ja-JP")
    other = context.new_page()
    other.goto(server.url)
    assert "2 件" in load(other, text)
    other.get_by_text("花の都").wait_for()
    assert other.get_by_test_id("role-select").input_value() == "samurai"
    other.reload()
    other.get_by_test_id("conversation").filter(has_text="フランス").click()
    assert texts(other, "user") == ["フランスの首都は?"]
    assert other.get_by_test_id("message-assistant").locator("strong").inner_text() == "花の都"
    context.close()


def test_json_of_one_conversation(page: Any) -> None:
    two_conversations(page)
    _, text = export(page, "current", "json")
    (found,) = json.loads(text)["conversations"]
    assert found["role"]["preset"] == "samurai"
    assert found["messages"][0] == {"role": "user", "content": "a/b: 首都は?"}


def test_a_changed_conversation_is_imported_beside_the_old_one(page: Any) -> None:
    load(page, one())
    assert "1 件" in load(page, one(messages=[{"role": "user", "content": "さようなら"}]))
    assert page.get_by_test_id("conversation").filter(has_text="こんにちは").count() == 1
    assert page.get_by_test_id("conversation").filter(has_text="さようなら").count() == 1


def test_another_file_is_refused_by_its_name(page: Any) -> None:
    contents: list[str | bytes] = [
        "",
        "こんにちは",
        "null",
        "[]",
        "{}",
        b"\xff\xfe\x00",
        '{"format": "issun-conversations", "version": 2, "conversations": []}',
        '{"format": "issun-conversations", "version": 1, "conversations": [null]}',
        one(messages="x"),
        one(messages=[{"role": "system", "content": "x"}]),
        one(messages=[{"role": "user", "content": 5}]),
        one(id="../x"),
        one(id=7),
    ]
    for number, content in enumerate(contents):
        assert f"「{number}.json」" in load(page, content, f"{number}.json"), content
    assert page.get_by_test_id("conversation").count() == 1


def test_an_imported_file_cannot_bring_markup_or_unknown_fields(page: Any) -> None:
    message = {"role": "assistant", "content": ATTACK, "state": "nothing", "used": "x", "more": 1}
    messages = [{"role": "user", "content": ATTACK}, message]
    role = {"preset": "nothing", "text": ATTACK}
    assert "1 件" in load(page, one(title=ATTACK, messages=messages, role=role))
    assert texts(page, "user") == texts(page, "assistant") == [ATTACK]
    assert page.get_by_test_id("title").inner_text() == ATTACK
    assert page.locator("img[src=x]").count() == 0
    assert page.get_by_test_id("role-select").input_value() == "none"
    stored = page.evaluate("JSON.parse(localStorage['issun.conversation.abc1'])")
    assert stored["messages"][1] == {"role": "assistant", "content": ATTACK}


def test_nothing_can_be_exported_of_nothing(page: Any) -> None:
    page.get_by_test_id("open-transfer").click()
    assert page.get_by_test_id("export").is_disabled()
    page.get_by_test_id("transfer-close").click()
    page.get_by_test_id("transfer").wait_for(state="hidden")
