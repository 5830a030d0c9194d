"""Messages of the dialect -> role, turns and message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from issun.runtime.text.turn import Turn
from issun.server.errors import ApiError
from issun.server.messages import parse_dialogue
from issun.server.types import Message


def messages(*pairs: tuple[Any, ...]) -> list[Message]:
    """Messages of (role, content) or (role, content, other fields)."""
    return [
        msgspec.convert({"role": role, "content": content, **(more[0] if more else {})}, Message)
        for role, content, *more in pairs
    ]


def called(*calls: tuple[str, str, Any]) -> dict[str, Any]:
    """The fields of a message that calls tools: (id, name, arguments)."""
    return {
        "tool_calls": [
            {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}
            for key, name, arguments in calls
        ]
    }


def result(key: str) -> dict[str, Any]:
    return {"tool_call_id": key}


PART = {"type": "text", "text": "一"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("user", "一")], ("", [], "一", "")),
        ([("system", "役"), ("user", "一")], ("役", [], "一", "")),
        ([("developer", "役"), ("user", "一")], ("役", [], "一", "")),
        ([("system", "甲"), ("developer", "乙"), ("user", "一")], ("甲\n乙", [], "一", "")),
        ([("user", "一"), ("user", "二")], ("", [], "一\n二", "")),
        (
            [("user", "一"), ("assistant", "答"), ("assistant", "続"), ("user", "二")],
            ("", [Turn("一", "答\n続")], "二", ""),
        ),
        ([("user", [PART, {"type": "text", "text": "二"}])], ("", [], "一二", "")),
        ([("user", [PART, "二"])], ("", [], "一二", "")),
        ([("user", [{"type": "input_text", "text": "一"}])], ("", [], "一", "")),
        ([("system", ""), ("user", "一")], ("", [], "一", "")),
    ],
)
def test_messages_become_role_turns_and_message(given: Any, expected: Any) -> None:
    assert tuple(parse_dialogue(messages(*given))) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # The assistant's message at the end is the beginning of the answer; a blank one is none.
        ([("user", "一"), ("assistant", "答は")], ("", [], "一", "答は")),
        ([("user", "一"), ("assistant", "答"), ("assistant", "は")], ("", [], "一", "答\nは")),
        ([("user", "一"), ("assistant", "")], ("", [], "一", "")),
        ([("user", "一"), ("assistant", " \n")], ("", [], "一", "")),
        ([("user", "一"), ("assistant", None)], ("", [], "一", "")),
        ([("user", "一"), ("assistant", "答は"), ("assistant", "")], ("", [], "一", "答は")),
        # A system's message in the middle joins the ones in front.
        (
            [("system", "甲"), ("user", "一"), ("system", "乙"), ("user", "二")],
            ("甲\n乙", [], "一\n二", ""),
        ),
        (
            [("user", "一"), ("assistant", "答"), ("developer", "役"), ("user", "二")],
            ("役", [Turn("一", "答")], "二", ""),
        ),
        ([("user", "一"), ("system", "役")], ("役", [], "一", "")),
        # Where nothing else comes after the last answer, it is the message.
        ([("system", "挨拶して")], ("", [], "挨拶して", "")),
        ([("system", "甲"), ("developer", "乙")], ("", [], "甲\n乙", "")),
        ([("system", "役"), ("user", "")], ("", [], "役", "")),
        (
            [("system", "甲"), ("user", "一"), ("assistant", "答"), ("system", "短く")],
            ("甲", [Turn("一", "答")], "短く", ""),
        ),
        ([("system", "挨拶して"), ("assistant", "こん")], ("", [], "挨拶して", "こん")),
        # An assistant may begin, and blank turns of the past are left out.
        ([("assistant", "やあ"), ("user", "一")], ("", [Turn("", "やあ")], "一", "")),
        (
            [("system", "役"), ("assistant", "やあ"), ("user", "一"), ("assistant", "答は")],
            ("役", [Turn("", "やあ")], "一", "答は"),
        ),
        ([("user", "一"), ("assistant", ""), ("user", "二")], ("", [], "一\n二", "")),
        (
            [("user", " "), ("assistant", "答"), ("user", "二")],
            ("", [Turn("", "答")], "二", ""),
        ),
        (
            [("user", "一"), ("assistant", "答"), ("user", None), ("user", "二")],
            ("", [Turn("一", "答")], "二", ""),
        ),
        ([("user", []), ("user", [PART])], ("", [], "一", "")),
        # What an assistant refused to say is what it said; what it only thought is not.
        (
            [("user", "一"), ("assistant", None, {"refusal": "いいえ"}), ("user", "二")],
            ("", [Turn("一", "いいえ")], "二", ""),
        ),
        (
            [
                ("user", "一"),
                ("assistant", [{"type": "thinking"}, {"type": "refusal", "refusal": "いいえ"}]),
                ("user", "二"),
            ],
            ("", [Turn("一", "いいえ")], "二", ""),
        ),
        ([("user", "一", {"name": "花子"})], ("", [], "一", "")),
    ],
)
def test_history_as_clients_keep_it(given: Any, expected: Any) -> None:
    assert tuple(parse_dialogue(messages(*given))) == expected


WEATHER = called(("c1", "weather", '{"city": "東京", "days": 2}'))
TWO = called(("c1", "weather", {"city": "東京"}), ("c2", "time", "{}"))
SPELLED = 'weather(city="東京", days=2)'


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            [("user", "天気は?"), ("assistant", None, WEATHER), ("tool", "晴れ", result("c1"))],
            ("", [], f"天気は?\n{SPELLED}: 晴れ", ""),
        ),
        (
            [
                ("user", "天気は?"),
                ("assistant", "調べます", WEATHER),
                ("tool", "晴れ", result("c1")),
            ],
            ("", [Turn("天気は?", "調べます")], f"{SPELLED}: 晴れ", ""),
        ),
        (
            [
                ("user", "天気は?"),
                ("assistant", None, TWO),
                ("tool", "九時", result("c2")),
                ("tool", [PART], result("c1")),
                ("assistant", "晴れです"),
                ("user", "明日は?"),
            ],
            (
                "",
                [Turn('天気は?\ntime(): 九時\nweather(city="東京"): 一', "晴れです")],
                "明日は?",
                "",
            ),
        ),
        # A call that nobody answered is what the assistant said.
        (
            [("user", "天気は?"), ("assistant", None, WEATHER), ("user", "まだ?")],
            ("", [Turn("天気は?", SPELLED)], "まだ?", ""),
        ),
        # A result of a call that is not there, or of arguments that are no JSON, is shown as it is.
        ([("user", "一"), ("tool", "晴れ", result("c9"))], ("", [], "一\n晴れ", "")),
        (
            [
                ("user", "一"),
                ("assistant", None, called(("c1", "f", "{東"))),
                ("tool", "", result("c1")),
            ],
            ("", [], "一\nf({東): ", ""),
        ),
        # The older spelling of the same.
        (
            [
                ("user", "一"),
                ("assistant", None, {"function_call": {"name": "f", "arguments": "{}"}}),
                ("function", "晴れ", {"name": "f"}),
            ],
            ("", [], "一\nf(): 晴れ", ""),
        ),
        ([("user", "一"), ("assistant", "答", {"tool_calls": []})], ("", [], "一", "答")),
        # Where the user goes on at once, the call was the answer.
        (
            [
                ("user", "天気は?"),
                ("assistant", None, WEATHER),
                ("tool", "晴れ", result("c1")),
                ("user", "明日は?"),
            ],
            ("", [Turn("天気は?", f"{SPELLED}: 晴れ")], "明日は?", ""),
        ),
        (
            [
                ("user", "天気は?"),
                ("assistant", None, TWO),
                ("tool", "九時", result("c2")),
                ("tool", "晴れ", result("c1")),
                ("system", "短く"),
                ("user", "明日は?"),
            ],
            (
                "短く",
                [Turn("天気は?", 'time(): 九時\nweather(city="東京"): 晴れ')],
                "明日は?",
                "",
            ),
        ),
        (
            [
                ("user", "天気は?"),
                ("assistant", None, WEATHER),
                ("tool", "晴れ", result("c1")),
                ("assistant", None, called(("c2", "time", "{}"))),
                ("tool", "九時", result("c2")),
                ("user", " "),
            ],
            ("", [], f"天気は?\n{SPELLED}: 晴れ\ntime(): 九時", ""),
        ),
    ],
)
def test_calls_of_tools_and_their_results_are_text(given: Any, expected: Any) -> None:
    assert tuple(parse_dialogue(messages(*given))) == expected


@pytest.mark.parametrize(
    ("given", "place", "reason"),
    [
        ([("user", "")], "messages[0]", "nothing to answer"),
        ([("user", None)], "messages[0]", "nothing to answer"),
        ([("assistant", "答")], "messages[0]", "nothing to answer"),
        ([("user", "一"), ("assistant", "答"), ("user", " ")], "messages[2]", "nothing to answer"),
        ([("user", "一"), ("king", "二")], "messages[1].role", "'king' is not a role"),
        (
            [("user", [PART, {"type": "image_url", "image_url": {"url": "data:,"}}])],
            "messages[0].content[1].image_url",
            "only text is supported",
        ),
        (
            [("user", "一"), ("user", [{"type": "input_audio", "input_audio": {"data": ""}}])],
            "messages[1].content[0].input_audio",
            "only text is supported",
        ),
        ([("user", [PART | {"file": {"file_id": "x"}}])], "messages[0].content[0].file", "text"),
        ([("user", [{"type": "video"}])], "messages[0].content[0].type", "'video'"),
        ([("user", [{"type": "text"}])], "messages[0].content[0].text", "needs its text"),
    ],
)
def test_what_has_no_place_is_refused_by_its_path(given: Any, place: str, reason: str) -> None:
    with pytest.raises(ApiError, match=reason) as caught:
        parse_dialogue(messages(*given))
    assert caught.value.param == place
    assert str(caught.value).startswith(f"{place}: ")
    assert caught.value.status == 400
