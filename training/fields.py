"""One object of a data file, under whatever names its fields go -> examples to learn from."""

from __future__ import annotations

import unicodedata
from collections import Counter
from difflib import get_close_matches
from typing import Any

from issun.export.template import ALPACA
from issun.runtime.prompt import Turn
from issun.training.conversations import conversation_examples
from issun.training.errors import fault
from issun.training.records import Example, chat_example, instruction_example

_INSTRUCTION = ("instruction", "input", "output")
_CHAT = ("role", "history", "message", "answer")
_CONVERSATION = "messages"
# Other names that fields have, in lower case and normal form.
ALIASES = {
    **dict.fromkeys(("instructions", "prompt", "question", "query", "指示", "質問"), "instruction"),
    **dict.fromkeys(("inputs", "context", "入力", "文脈"), "input"),
    **dict.fromkeys(("outputs", "completion", "response", "出力", "応答"), "output"),
    **dict.fromkeys(("answers", "回答"), "answer"),
    **dict.fromkeys(("system", "system_prompt", "役割"), "role"),
    **dict.fromkeys(("conversations", "conversation", "会話"), _CONVERSATION),
}
_NAMES = {name: name for name in (*_INSTRUCTION, *_CHAT, _CONVERSATION)} | ALIASES
# What an answer was made from, or how it is to be learnt: it cannot be left out.
_REFUSED = {
    *("tools", "functions", "function_call", "tool_calls", "image", "images", "audio", "video"),
    *("chosen", "rejected", "weight"),
}
_NO_WEIGHTS = ("weight", 1)  # asks for nothing
_USER, _ASSISTANT = (
    pattern.removesuffix("{message}") for pattern in (ALPACA.chat.user, ALPACA.chat.assistant)
)


def examples_of(value: Any, ignored: Counter[str]) -> list[Example]:
    """The examples of one object: one, or of a conversation one for each answer.

    Counts in `ignored` the fields that do not belong to a record. Raises RecordError.
    """
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {_CONVERSATION: value}  # a conversation by itself
    if not isinstance(value, dict):
        raise fault("not an object")
    fields = _Fields(value, ignored)
    if _CONVERSATION in fields.names:
        fields.allow((_CONVERSATION, "role"), "a conversation and of another record")
        messages, role = fields.values[_CONVERSATION], fields.values.get("role")
        if not isinstance(messages, list):
            raise fault(f"`{fields.names[_CONVERSATION]}` is no list")
        return conversation_examples(messages, fields.names[_CONVERSATION], role, ignored)
    if "instruction" in fields.names and "output" not in fields.names:
        fields.rename("answer", "output")  # that of a question
    if fields.names.keys() & set(_CHAT):
        fields.allow(_CHAT, "an instruction and of a chat")
        role, turns = _role(fields), _turns(fields.values.get("history"))
        return [chat_example(role, turns, fields.text("message"), fields.text("answer"))]
    instruction = fields.text("instruction")
    input_text = None if fields.values.get("input") is None else fields.text("input")
    return [instruction_example(instruction, input_text, fields.text("output"))]


def field_of(name: str) -> str | None:
    """The field of a record that a name means; None for another name."""
    return _NAMES.get(_normal(name))


def _normal(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().lower()


class _Fields:
    """The values by the field that they are, and the name that each has in the file."""

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
        """Take one field for another, if it is there."""
        if field in self.names:
            self.values[to], self.names[to] = self.values.pop(field), self.names.pop(field)

    def allow(self, allowed: tuple[str, ...], kinds: str) -> None:
        """Raise RecordError unless all fields are of one kind of record."""
        if not self.names.keys() <= set(allowed):
            mixed = ", ".join(f"`{name}`" for name in self.names.values())
            raise fault(f"mixes the fields of {kinds}: {mixed}")

    def text(self, field: str) -> str:
        """The text of a field; raises RecordError where there is none."""
        if field not in self.names:
            there = ", ".join(f"`{name}`" for name in self._other)
            raise fault(f"`{field}` is missing" + (f" beside {there}" if there else ""))
        if not isinstance(self.values[field], str):
            raise fault(f"`{self.names[field]}` is no text")
        text: str = self.values[field]
        return text


def _check_other(name: str, content: Any) -> None:
    """Raise RecordError for a field that cannot be left out, and for a slip in a field's name."""
    known = _normal(name)
    if known in _REFUSED and content and (known, content) != _NO_WEIGHTS:
        raise fault(f"`{name}` cannot be learnt from")
    if close := get_close_matches(known, _NAMES, n=1, cutoff=0.8):
        raise fault(f"`{name}` is no field: is it meant as `{close[0]}`?")


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
        raise fault("`history` is no list")
    if all(_are_texts(pair) and len(pair) == 2 for pair in history):
        return [Turn(message, answer) for message, answer in history]
    if not _are_texts(history):
        raise fault("`history` is no list of [message, answer], and no list of lines")
    marks = (_USER, _ASSISTANT)
    if len(history) % 2 or any(not line.startswith(marks[i % 2]) for i, line in enumerate(history)):
        raise fault(f"the lines of `history` are not {_USER}… and {_ASSISTANT}… in turn")
    lines = [line.removeprefix(marks[i % 2]) for i, line in enumerate(history)]
    return [Turn(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
