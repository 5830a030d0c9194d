"""No accessibility fault that axe-core knows, in any state of the page.

axe-core is not part of the project: `npm install --prefix build/axe axe-core` gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.page.driving import answer_with, ask, respond, take_over, wait_for_end

AXE = Path(__file__).parents[2] / "build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.skipif(
    not AXE.is_file(), reason="axe-core is missing: npm install --prefix build/axe axe-core"
)
MARKDOWN = (
    "## 題\n本文と**太字**と*強調*と`code`。[山](https://example.com/)\n\n#### 小さな題\n"
    "- 一\n- 二\n\n> 引用\n\n| 山 | 高さ |\n|---|--:|\n| 富士山 | 3776 |\n\n"
    "```python\nprint(1)\n```\n"
)


def talk(page: Any) -> None:
    answer_with(page, MARKDOWN, end="length", usage={"total_tokens": 450, "completion_tokens": 30})
    ask(page, "富士山について")
    wait_for_end(page)
    take_over(page)


def empty(page: Any) -> None:
    page.get_by_test_id("example").first.wait_for()


def conversation(page: Any) -> None:
    talk(page)
    page.get_by_test_id("message-user").hover()


def failure(page: Any) -> None:
    talk(page)
    respond(page, [{"error": {"message": "no", "type": "x", "param": None, "code": "y"}}])
    ask(page, "聞こえますか")
    page.get_by_test_id("failure").wait_for()


def editing(page: Any) -> None:
    talk(page)
    page.get_by_test_id("role-select").select_option("own")
    page.get_by_test_id("edit").click()


def searching(page: Any) -> None:
    talk(page)
    page.get_by_test_id("search").fill("富士")


def dialog(name: str) -> Callable[[Any], None]:
    def show(page: Any) -> None:
        talk(page)
        page.get_by_test_id(f"open-{name}").click()

    return show


def wrong_setting(page: Any) -> None:
    page.get_by_test_id("open-settings").click()
    page.get_by_test_id("setting-temperature").fill("9")
    page.get_by_test_id("setting-top_p").focus()


def confirmation(page: Any) -> None:
    talk(page)
    page.get_by_test_id("delete-all").click()


def notice(page: Any) -> None:
    talk(page)
    page.get_by_test_id("reset").click()
    page.get_by_test_id("close-notice").wait_for()


def folded(page: Any) -> None:
    page.get_by_test_id("close-sidebar").click()


STATES: dict[str, Callable[[Any], None]] = {
    "empty": empty,
    "conversation": conversation,
    "failure": failure,
    "editing": editing,
    "searching": searching,
    "settings": dialog("settings"),
    "wrong setting": wrong_setting,
    "transfer": dialog("transfer"),
    "shortcuts": dialog("shortcuts"),
    "confirmation": confirmation,
    "notice": notice,
    "folded": folded,
}


def faults(page: Any) -> list[str]:
    """The rules that the page breaks as it is now, with the elements."""
    page.wait_for_timeout(200)  # transitions change colours
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        """() => axe.run({ rules: { "target-size": { enabled: true } } })
          .then(({ violations }) => violations)"""
    )
    return [f"{each['id']}: {node['html'][:150]}" for each in found for node in each["nodes"]]


@pytest.mark.sampled
@pytest.mark.parametrize("state", STATES)
def test_no_state_has_a_fault(page: Any, state: str) -> None:
    STATES[state](page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert faults(page) == [], scheme


@pytest.mark.sampled
@pytest.mark.parametrize("state", ["empty", "conversation", "failure", "settings"])
def test_a_phone_has_no_fault(page: Any, state: str) -> None:
    page.set_viewport_size({"width": 390, "height": 760})
    STATES[state](page)
    assert faults(page) == []


def test_the_drawer_of_a_phone_has_no_fault(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 760})
    talk(page)
    page.get_by_test_id("open-drawer").click()
    assert faults(page) == []


def test_a_fault_is_found(page: Any) -> None:
    page.evaluate("document.querySelector('#title').after(document.createElement('button'))")
    assert any(fault.startswith("button-name") for fault in faults(page))
