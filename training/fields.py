"""Converts an object of a data file to training examples, under any of the known field names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from difflib import get_close_matches
from typing import Any

from issun.export.template import ALPACA
from issun.runtime.text.turn import Turn
from issun.training.conversations import conversation_examples
from issun.training.errors import fault
from issun.training.records import Example, chat_example, instruction_example

_INSTRUCTION = ("instruction", "input", "output")
_CHAT = ("role", "history", "message", "answer")
_CONVERSATION = "messages"
# Other names of fields, in lower case and NFKC.
ALIASES = {
    **dict.fromkeys(("instructions", "prompt", "question", "query", "指示", "質問"), "instruction"),
    **dict.fromkeys(("inputs", "context", "入力", "文脈"), "input"),
    **dict.fromkeys(("outputs", "completion", "response", "出力", "応答"), "output"),
    **dict.fromkeys(("answers", "回答"), "answer"),
    **dict.fromkeys(("system", "system_prompt", "役割"), "role"),
    **dict.fromkeys(("conversations", "conversation", "会話"), _CONVERSATION),
}
_NAMES = {name: name for name in (*_INSTRUCTION, *_CHAT, _CONVERSATION)} | ALIASES
# Fields that change what is to be learned, so that they must not be ignored.
_UNSUPPORTED = {
    *("tools", "functions", "function_call", "tool_calls", "image", "images", "audio", "video"),
    *("chosen", "rejected", "weight"),
}
_DEFAULT_WEIGHT = ("weight", 1)  # the only weight that changes nothing
_USER, _ASSISTANT = (
    pattern.removesuffix("{message}") for pattern in (ALPACA.chat.user, ALPACA.chat.assistant)
)


def examples_of(value: Any, ignored: Counter[str]) -> list[Example]:
    """The examples of one object: one, or for a conversation one for each answer.

    Fields that are not used are counted in `ignored`. Raises RecordError.
    """
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {_CONVERSATION: value}  # a bare list of messages
    if not isinstance(value, dict):
        raise fault("not an object")
    fields = _Fields(value, ignored)
    if _CONVERSATION in fields.names:
        fields.allow((_CONVERSATION, "role"), "a conversation and another kind of record")
        messages, role = fields.values[_CONVERSATION], fields.values.get("role")
        if not isinstance(messages, list):
            raise fault(f"`{fields.names[_CONVERSATION]}` is not a list")
        return conversation_examples(messages, fields.names[_CONVERSATION], role, ignored)
    if "instruction" in fields.names and "output" not in fields.names:
        fields.rename("answer", "output")  # a pair of question and answer
    if fields.names.keys() & set(_CHAT):
        fields.allow(_CHAT, "an instruction and a chat")
        role, turns = _role(fields), _turns(fields.values.get("history"))
        return [chat_example(role, turns, fields.text("message"), fields.text("answer"))]
    instruction = fields.text("instruction")
    input_text = None if fields.values.get("input") is None else fields.text("input")
    return [instruction_example(instruction, input_text, fields.text("output"))]


def field_of(name: str) -> str | None:
    """The record field that `name` stands for; None if it is not one."""
    return _NAMES.get(_normal(name))


def _normal(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().lower()


class _Fields:
    """The values of an object by record field, and each field's name in the file."""

    def __init__(self, value: dict[str, Any], ignored: Counter[str]) -> None:
        self.values: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        other = []
        for name, content in value.items():
            field = field_of(name)
            if field is None:
                _check_other(name, content)
                other.append(name)
            elif field not in self.names or self.values[field] is None:
                self.values[field], self.names[field] = content, name
            elif content is not None:
                raise fault(f"`{self.names[field]}` and `{name}` are both the field `{field}`")
        self._other = other
        ignored.update(other)

    def rename(self, field: str, to: str) -> None:
        """Rename a field, if it is present."""
        if field in self.names:
            self.values[to], self.names[to] = self.values.pop(field), self.names.pop(field)

    def allow(self, allowed: tuple[str, ...], kinds: str) -> None:
        """Raise RecordError unless all fields belong to one kind of record."""
        if not self.names.keys() <= set(allowed):
            mixed = ", ".join(f"`{name}`" for name in self.names.values())
            raise fault(f"mixes fields of {kinds}: {mixed}")

    def text(self, field: str) -> str:
        """The text of a field; raises RecordError if it is missing or not text."""
        if field not in self.names:
            others = ", ".join(f"`{name}`" for name in self._other)
            raise fault(f"`{field}` is missing" + (f", there is only {others}" if others else ""))
        if not isinstance(self.values[field], str):
            raise fault(f"`{self.names[field]}` is not text")
        text: str = self.values[field]
        return text


def _check_other(name: str, content: Any) -> None:
    """Raise RecordError for a field that must not be ignored, and for a misspelled field."""
    normal = _normal(name)
    if normal in _UNSUPPORTED and content and (normal, content) != _DEFAULT_WEIGHT:
        raise fault(f"`{name}` is not supported")
    if close := get_close_matches(normal, _NAMES, n=1, cutoff=0.8):
        raise fault(f"`{name}` is unknown: did you mean `{close[0]}`?")


def _role(fields: _Fields) -> list[str] | str:
    role = fields.values.get("role")
    if role is None:
        return []
    if isinstance(role, str) or _are_texts(role):
        return role  # type: ignore[no-any-return]
    raise fault(f"`{fields.names['role']}` is neither a text nor a list of texts")


def _turns(history: Any) -> list[Turn]:
    if history is None:
        return []
    if not isinstance(history, list):
        raise fault("`history` is not a list")
    if all(_are_texts(pair) and len(pair) == 2 for pair in history):
        return [Turn(message, answer) for message, answer in history]
    if not _are_texts(history):
        raise fault("`history` is neither a list of [message, answer] nor a list of lines")
    marks = (_USER, _ASSISTANT)
    if len(history) % 2 or any(not line.startswith(marks[i % 2]) for i, line in enumerate(history)):
        raise fault(f"the lines of `history` do not alternate between {_USER}… and {_ASSISTANT}…")
    lines = [line.removeprefix(marks[i % 2]) for i, line in enumerate(history)]
    return [Turn(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
