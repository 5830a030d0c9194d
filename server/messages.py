"""Messages of the dialect -> role, turns and message of the model's prompt.

System and developer messages come first and are the role. What several messages of one speaker in a
row say is one message of several lines. The last message is the user's. Everything else is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from msgspec import UNSET

from issun.runtime.prompt import Turn
from issun.server.errors import ApiError, UnsupportedError
from issun.server.types import ContentPart, Message

_SYSTEM = ("system", "developer")


class Dialogue(NamedTuple):
    """A system text (empty: none), earlier turns, and what the user says now."""

    system: str
    turns: list[Turn]
    message: str


def dialogue_of(messages: Sequence[Message]) -> Dialogue:
    """Take the messages apart; raises ApiError naming the one that has no place."""
    said: list[tuple[str, str]] = []
    place = 0
    for role, group in groupby(messages, lambda m: "system" if m.role in _SYSTEM else m.role):
        texts = [_text(message, number) for number, message in enumerate(group, place)]
        said.append((role, "\n".join(texts)))
        if role == "system" and place:
            raise _refused(place, "a system message can only come first")
        if role in ("tool", "function"):
            raise _refused(place, "tools are not supported")
        place += len(texts)
    system = said.pop(0)[1] if said[0][0] == "system" else ""
    if not said or said[0][0] != "user":
        raise _refused(place - 1, "the first message behind the system's must be the user's")
    if said[-1][0] != "user":
        raise _refused(place - 1, "the last message must be the user's")
    pairs = [(a[1], b[1]) for a, b in list(pairwise(said))[::2]]
    return Dialogue(system, [Turn(*pair) for pair in pairs], said[-1][1])


def _text(message: Message, place: int) -> str:
    content = message.content
    if message.refusal is not None:
        raise _refused(place, "a refusal is not supported")
    if content is None:
        raise _refused(place, "it has no content")
    text = content if isinstance(content, str) else "".join(_part(p, place) for p in content)
    if not text.strip() and message.role not in _SYSTEM:
        raise _refused(place, "its content is empty")
    return text


def _part(part: ContentPart, place: int) -> str:
    if part.type != "text":
        raise UnsupportedError(
            "messages[{place}] has a part of type {kind!r}: only text is supported.",
            place=place,
            kind=part.type[:50],
        )
    if not isinstance(part.text, str):
        raise _refused(place, "a part of type text has no text")
    if any(x is not UNSET for x in (part.image_url, part.input_audio, part.file, part.refusal)):
        raise _refused(place, "a part of type text has something else beside it")
    return part.text


def _refused(place: int, reason: str) -> ApiError:
    error = ApiError("messages[{place}] is refused: {reason}.", place=place, reason=reason)
    error.param = f"messages[{place}]"
    return error
