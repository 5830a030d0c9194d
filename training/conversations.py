"""Converts conversations in the formats of ShareGPT and OpenAI to one example per answer.

ShareGPT uses `from` and `value`, OpenAI `role` and `content`. The prompt of each example contains
all earlier turns, as it does at inference.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from issun.runtime.text.turn import Turn
from issun.training.errors import fault
from issun.training.records import Example, chat_example

# Names of speakers in data sets.
SPEAKERS = {
    **dict.fromkeys(("user", "human", "prompter", "ユーザー", "人間"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "ai", "アシスタント"),
        "assistant",
    ),
    **dict.fromkeys(("system", "developer", "システム"), "system"),
}
_WHO, _WHAT = ("from", "role"), ("value", "content")
_TOOLS = ("tool_calls", "function_call", "audio", "refusal")


class _Message(NamedTuple):
    speaker: str
    text: str
    trained: bool


def conversation_examples(
    messages: list[Any], name: str, role: Any, ignored: Counter[str]
) -> list[Example]:
    """One example for each answer, except those with `weight` 0.

    `name` is the field of the list, for error messages. The role is `role` or a system message.
    Fields of messages that are not used are counted in `ignored`. Raises RecordError unless the
    conversation is an optional system message followed by alternating user and assistant messages.
    """
    read = [_read(item, f"{name}[{place}]", ignored) for place, item in enumerate(messages)]
    if role not in (None, "", []) and not isinstance(role, str):
        raise fault("the role of the conversation is not text")
    if read and read[0].speaker == "system":
        if role:
            raise fault(f"has both a role and a system message in `{name}`")
        role = read.pop(0).text
    first = len(messages) - len(read)
    for place, message in enumerate(read):
        expected = ("user", "assistant")[place % 2]
        if message.speaker != expected:
            at = f"`{name}[{first + place}]`"
            raise fault(f"{at} is from the {message.speaker}, expected the {expected}")
    if len(read) % 2:
        raise fault(f"`{name}` ends with a user message without an answer")
    turns = [Turn(ask.text, answer.text) for ask, answer in zip(read[::2], read[1::2], strict=True)]
    examples = [
        chat_example(role or [], turns[:place], turn.message, turn.reply)
        for place, turn in enumerate(turns)
        if read[2 * place + 1].trained
    ]
    if not examples:
        raise fault(f"`{name}` has no answer to train on")
    return examples


def _read(item: Any, at: str, ignored: Counter[str]) -> _Message:
    if not isinstance(item, dict):
        raise fault(f"`{at}` is not an object")
    who, what = (
        next((name for name in names if item.get(name) is not None), None)
        for names in (_WHO, _WHAT)
    )
    for name in _TOOLS:
        if item.get(name):
            raise fault(f"`{at}.{name}` is not supported")
    if who is None or what is None:
        missing = _WHO if who is None else _WHAT
        raise fault(f"`{at}` has no " + " or ".join(f"`{name}`" for name in missing))
    speaker = SPEAKERS.get(item[who].strip().lower()) if isinstance(item[who], str) else None
    if speaker is None:
        raise fault(f"`{at}.{who}` is {item[who]!r}, expected user, assistant or system")
    weight = item.get("weight")
    if weight not in (None, 0, 1):
        raise fault(f"`{at}.weight` is {weight!r}, it must be 0 or 1")
    known = {*_WHO, *_WHAT, *_TOOLS, "weight"}
    ignored.update(f"{at.partition('[')[0]}[].{name}" for name in item.keys() - known)
    return _Message(speaker, _text(item[what], f"{at}.{what}"), weight != 0)


def _text(content: Any, at: str) -> str:
    """The text of a message: a string, or OpenAI's list of content parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise fault(f"`{at}` is not text")
    texts = []
    for place, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type", "text") != "text":
            raise fault(f"`{at}[{place}]` is not a text part")
        if not isinstance(part.get("text"), str):
            raise fault(f"`{at}[{place}].text` is not text")
        texts.append(part["text"])
    return "".join(texts)
