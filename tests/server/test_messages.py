"""Messages of the dialect -> role, turns and message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from issun.runtime.prompt import Turn
from issun.server.errors import ApiError
from issun.server.messages import dialogue_of
from issun.server.types import Message


def messages(*pairs: tuple[str, Any]) -> list[Message]:
    return [msgspec.convert({"role": role, "content": content}, Message) for role, content in pairs]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("user", "一")], ("", [], "一")),
        ([("system", "役"), ("user", "一")], ("役", [], "一")),
        ([("developer", "役"), ("user", "一")], ("役", [], "一")),
        ([("system", "甲"), ("developer", "乙"), ("user", "一")], ("甲\n乙", [], "一")),
        ([("user", "一"), ("user", "二")], ("", [], "一\n二")),
        (
            [("user", "一"), ("assistant", "答"), ("assistant", "続"), ("user", "二")],
            ("", [Turn("一", "答\n続")], "二"),
        ),
        (
            [("user", [{"type": "text", "text": "一"}, {"type": "text", "text": "二"}])],
            ("", [], "一二"),
        ),
        ([("system", ""), ("user", "一")], ("", [], "一")),
    ],
)
def test_messages_become_role_turns_and_message(given: Any, expected: Any) -> None:
    assert tuple(dialogue_of(messages(*given))) == expected


@pytest.mark.parametrize(
    ("given", "place", "reason"),
    [
        ([("assistant", "答"), ("user", "一")], 1, "must be the user's"),
        ([("user", "一"), ("assistant", "答")], 1, "the last message must be the user's"),
        ([("user", "一"), ("system", "役"), ("user", "二")], 1, "can only come first"),
        ([("system", "役")], 0, "must be the user's"),
        ([("user", "")], 0, "its content is empty"),
        ([("user", None)], 0, "it has no content"),
        ([("user", "一"), ("tool", "x"), ("user", "二")], 1, "tools are not supported"),
        ([("user", [{"type": "image_url", "image_url": {}}])], 0, "only text is supported"),
        ([("user", [{"type": "text"}])], 0, "has no text"),
    ],
)
def test_what_has_no_place_is_refused_by_its_number(given: Any, place: int, reason: str) -> None:
    with pytest.raises(ApiError, match=reason) as caught:
        dialogue_of(messages(*given))
    assert f"messages[{place}]" in str(caught.value)
    assert caught.value.status == 400
