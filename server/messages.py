"""Messages of the dialect -> role, turns and message of the model's prompt.

System and developer messages are the role, wherever they stand; where nothing else comes after the
last answer, they are the message. What a tool found is told by the user, with the call, but by the
assistant where the user goes on without another answer: the call was the answer. Several texts of
one speaker in a row are one message of several lines; blank ones are left out. An assistant's
message at the end is the beginning of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import Any, NamedTuple

import msgspec

from issun.runtime.prompt import Turn
from issun.server.body import invalid, refused
from issun.server.types import ContentPart, FunctionCall, Message

_SPEAKERS = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "tool": "user",
    "function": "user",
    "assistant": "assistant",
}
_RESULTS = ("tool", "function")
_TEXTS = ("text", "input_text", "output_text")
_REASONING = ("thinking", "redacted_thinking", "reasoning")


class Dialogue(NamedTuple):
    """A system text, earlier turns, what the user says now, and how the answer begins.

    Where the assistant spoke first, the first turn's message is empty; `system` and `beginning` may
    be, too.
    """

    system: str
    turns: list[Turn]
    message: str
    beginning: str = ""


def dialogue_of(messages: Sequence[Message]) -> Dialogue:
    """Take the messages apart; raises ApiError naming the one that has no place."""
    said = [(speaker, text) for speaker, text in _said(messages) if text.strip()]
    _answer_last_system(said)
    system = "\n".join(text for speaker, text in said if speaker == "system")
    spoken = groupby((s for s in said if s[0] != "system"), lambda s: s[0])
    lines = [(speaker, "\n".join(text for _, text in group)) for speaker, group in spoken]
    beginning = lines.pop()[1] if lines and lines[-1][0] == "assistant" else ""
    nothing_new = beginning and messages[-1].role == "user"
    if nothing_new or not (lines or system):
        raise invalid(
            f"messages[{len(messages) - 1}]",
            "there is nothing to answer: send a text of role user.",
        )
    if not lines:
        lines, system = [("user", system)], ""
    *earlier, (_, message) = lines
    return Dialogue(system, _turns(earlier), message, beginning)


def _answer_last_system(said: list[tuple[str, str]]) -> None:
    """Make the system's texts the user's where nothing else comes after the last answer."""
    place = len(said)
    while place and said[place - 1][0] == "system":
        place -= 1
    if not place or said[place - 1][0] == "assistant":
        said[place:] = [("user", text) for _, text in said[place:]]


def _said(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Who says what; a result is told together with the call that it is of."""
    calls: dict[str, str] = {}
    texts = [_text(message, f"messages[{place}]") for place, message in enumerate(messages)]
    tellers = _tellers(messages, texts)
    for place, (message, text) in enumerate(zip(messages, texts, strict=True)):
        if message.role in _RESULTS:
            call = calls.pop(message.tool_call_id or message.name or "", "")
            yield (tellers[place], f"{call}: {text}") if call else ("user", text)
            continue
        following = takewhile(lambda m: m.role in _RESULTS, messages[place + 1 :])
        answered = {result.tool_call_id or result.name or "" for result in following}
        calls = _calls(message)
        open_calls = [call for key, call in calls.items() if key not in answered]
        yield _speaker(message, place), "\n".join([text] * bool(text) + open_calls)


def _tellers(messages: Sequence[Message], texts: Sequence[str]) -> list[str]:
    """For each message who would tell what a tool found, by who speaks next."""
    teller = "user"
    found = []
    for message, text in zip(reversed(messages), reversed(texts), strict=True):
        if message.role == "assistant":
            teller = "user"
        elif message.role == "user" and text.strip():
            teller = "assistant"
        found.append(teller)
    return found[::-1]


def _calls(message: Message) -> dict[str, str]:
    """The calls of a message by the id, or else the name, that their results have."""
    found = {call.id or call.function.name: call.function for call in message.tool_calls or []}
    if message.function_call:
        found[message.function_call.name] = message.function_call
    return {key: _spell(call) for key, call in found.items()}


def _spell(call: FunctionCall) -> str:
    """A call as plain text, `weather(city="東京")`: few vocabularies here have braces."""
    arguments = call.arguments
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return f"{call.name}({arguments})"
    spelled = (f"{key}={msgspec.json.encode(value).decode()}" for key, value in arguments.items())
    return f"{call.name}({', '.join(spelled)})"


def _text(message: Message, place: str) -> str:
    content = message.content
    if isinstance(content, list):
        parts = (_part(part, f"{place}.content[{i}]") for i, part in enumerate(content))
        return "".join(parts)
    return content or message.refusal or ""


def _turns(lines: Sequence[tuple[str, str]]) -> list[Turn]:
    """Pairs of what user and assistant say in turn; an assistant may begin."""
    texts = [text for _, text in lines]
    if lines and lines[0][0] == "assistant":
        texts.insert(0, "")
    return [Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def _speaker(message: Message, place: int) -> str:
    if message.role not in _SPEAKERS:
        raise invalid(
            f"messages[{place}].role",
            "{role!r} is no role: it must be one of {roles}.",
            role=message.role[:50],
            roles=", ".join(_SPEAKERS),
        )
    return _SPEAKERS[message.role]


def _part(part: ContentPart | str, place: str) -> str:
    if isinstance(part, str):
        return part
    if part.type in _REASONING:
        return ""
    foreign = (name for name in ("image_url", "input_audio", "file") if getattr(part, name))
    if name := next(foreign, None):
        raise refused(f"{place}.{name}", "only text is supported: send a part of type text.")
    if part.type == "refusal":
        return part.refusal or ""
    if part.type not in _TEXTS:
        raise refused(
            f"{place}.type", "{kind!r} is not supported: only text is.", kind=part.type[:50]
        )
    if part.text is None:
        raise invalid(f"{place}.text", "a part of type text needs its text.")
    return part.text
