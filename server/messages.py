"""Converts API messages to a dialogue: system text, turns, message and beginning of the answer.

- System and developer messages form the system text, wherever they are; those after the last
  answer are the user's message if nothing else follows it.
- A tool's result becomes a text of the user, together with the call. It becomes a text of the
  assistant if a user message follows without another answer: then the call was the answer.
- Consecutive texts of one speaker are joined with newlines; blank ones are dropped.
- An assistant's message at the end is the beginning of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile
from typing import Any, NamedTuple

import msgspec

from issun.runtime.text.turn import Turn
from issun.server.body import invalid, unsupported
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
    """A system text, earlier turns, the user's message and the beginning of the answer.

    `system` and `beginning` may be empty, and so may the first turn's message, if the assistant
    spoke first.
    """

    system: str
    turns: list[Turn]
    message: str
    beginning: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The system text, the turns' texts and the message, in order."""
        spoken = (text for turn in self.turns for text in (turn.message, turn.reply))
        return self.system, *spoken, self.message


def parse_dialogue(messages: Sequence[Message]) -> Dialogue:
    """The dialogue of a request's messages; raises ApiError with the path of an invalid one."""
    texts = [(speaker, text) for speaker, text in _speaker_texts(messages) if text.strip()]
    _answer_last_system(texts)
    system = "\n".join(text for speaker, text in texts if speaker == "system")
    spoken = groupby((s for s in texts if s[0] != "system"), lambda s: s[0])
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


def _answer_last_system(texts: list[tuple[str, str]]) -> None:
    """Turn system texts into user texts if only they follow the last answer."""
    index = len(texts)
    while index and texts[index - 1][0] == "system":
        index -= 1
    if not index or texts[index - 1][0] == "assistant":
        texts[index:] = [("user", text) for _, text in texts[index:]]


def _speaker_texts(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Pairs of speaker and text; a tool's result includes the call that it belongs to."""
    calls: dict[str, str] = {}
    texts = [_text(message, f"messages[{index}]") for index, message in enumerate(messages)]
    speakers = _result_speakers(messages, texts)
    for index, (message, text) in enumerate(zip(messages, texts, strict=True)):
        if message.role in _RESULTS:
            call = calls.pop(message.tool_call_id or message.name or "", "")
            yield (speakers[index], f"{call}: {text}") if call else ("user", text)
            continue
        following = takewhile(lambda m: m.role in _RESULTS, messages[index + 1 :])
        answered = {result.tool_call_id or result.name or "" for result in following}
        calls = _calls(message)
        open_calls = [call for key, call in calls.items() if key not in answered]
        yield _speaker(message, index), "\n".join([text] * bool(text) + open_calls)


def _result_speakers(messages: Sequence[Message], texts: Sequence[str]) -> list[str]:
    """For each message who would tell what a tool found, by who speaks next."""
    speaker = "user"
    found = []
    for message, text in zip(reversed(messages), reversed(texts), strict=True):
        if message.role == "assistant":
            speaker = "user"
        elif message.role == "user" and text.strip():
            speaker = "assistant"
        found.append(speaker)
    return found[::-1]


def _calls(message: Message) -> dict[str, str]:
    """The calls of a message by id, or by name for calls without an id."""
    found = {call.id or call.function.name: call.function for call in message.tool_calls or []}
    if message.function_call:
        found[message.function_call.name] = message.function_call
    return {key: _spell(call) for key, call in found.items()}


def _spell(call: FunctionCall) -> str:
    """A call as plain text, `weather(city="東京")`, since few vocabularies have braces."""
    arguments = call.arguments
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return f"{call.name}({arguments})"
    spelled = (f"{key}={msgspec.json.encode(value).decode()}" for key, value in arguments.items())
    return f"{call.name}({', '.join(spelled)})"


def _text(message: Message, path: str) -> str:
    content = message.content
    if isinstance(content, list):
        parts = (_part(part, f"{path}.content[{i}]") for i, part in enumerate(content))
        return "".join(parts)
    return content or message.refusal or ""


def _turns(lines: Sequence[tuple[str, str]]) -> list[Turn]:
    """The turns of alternating texts; the assistant may come first."""
    texts = [text for _, text in lines]
    if lines and lines[0][0] == "assistant":
        texts.insert(0, "")
    return [Turn(*pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def _speaker(message: Message, index: int) -> str:
    if message.role not in _SPEAKERS:
        raise invalid(
            f"messages[{index}].role",
            "{role!r} is not a role: it must be one of {roles}.",
            role=message.role[:50],
            roles=", ".join(_SPEAKERS),
        )
    return _SPEAKERS[message.role]


def _part(part: ContentPart | str, path: str) -> str:
    if isinstance(part, str):
        return part
    if part.type in _REASONING:
        return ""
    foreign = (name for name in ("image_url", "input_audio", "file") if getattr(part, name))
    if name := next(foreign, None):
        raise unsupported(f"{path}.{name}", "only text is supported: send a part of type text.")
    if part.type == "refusal":
        return part.refusal or ""
    if part.type not in _TEXTS:
        raise unsupported(
            f"{path}.type", "{kind!r} is not supported: only text is.", kind=part.type[:50]
        )
    if part.text is None:
        raise invalid(f"{path}.text", "a part of type text needs its text.")
    return part.text
