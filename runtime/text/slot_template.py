"""Templates with placeholders: role, history and message fill the slots of one text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from issun.runtime.manifest import AnyTemplate, Template
from issun.runtime.text.tokenizer import Tokenizer
from issun.runtime.text.turn import Turn

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Parts = list[str | int]  # texts, and ids of special tokens


class SlotFormat:
    """Fills a template; only special tokens of the template itself count as special."""

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        self._template, self._tokenizer = template, tokenizer
        self.reserve = template.chat.reserve
        self._with_input = tokenizer.split(template.with_input)
        self._without_input = tokenizer.split(template.without_input)
        self._chat = tokenizer.split(template.chat.prompt or template.with_input)

    def instruction(
        self, instruction: str, input_text: str | None, answer_prefix: str = ""
    ) -> list[int]:
        """Return the ids of an instruction with optional input."""
        parts = self._without_input if input_text is None else self._with_input
        return self._render(parts, instruction, input_text, answer_prefix)

    def chat(
        self,
        role: Sequence[str],
        turns: Sequence[Turn],
        message: str,
        answer_prefix: str = "",
        *,
        dropped: bool = False,
    ) -> list[int]:
        """Return the ids of a conversation's next prompt, with all turns."""
        if dropped and (mark := self._template.chat.dropped):
            role = [*role, mark]
        values = chat_values(self._template, role, turns, message)
        return self._render(self._chat, *values, answer_prefix)

    def system_lines(self, text: str) -> list[str]:
        """Convert a system text to role lines."""
        return system_lines(self._template, text)

    def file_lines(self, text: str) -> list[str]:
        """Convert the text of a role file to role lines: those that are not blank."""
        return [line for line in text.splitlines() if line.strip()]

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def _render(
        self, parts: Parts, instruction: str, input_text: str | None, answer_prefix: str = ""
    ) -> list[int]:
        values = placeholder_values(self._template, instruction, input_text)
        if answer_prefix:  # encoded together with the text before it, as in the training data
            values["answer_prefix"] = on_one_line(self._template, answer_prefix)
            *parts, last = parts
            parts += (
                [last, "{answer_prefix}"] if isinstance(last, int) else [last + "{answer_prefix}"]
            )
        # User text is encoded as plain text, so it cannot produce a special token.
        filled = [part if isinstance(part, int) else fill(part, values) for part in parts]
        return self._tokenizer.encode_parts(filled)


def chat_values(
    template: Template, role: Sequence[str], turns: Sequence[Turn], message: str
) -> tuple[str, str]:
    """Return the instruction and the input for a role, turns and the next message."""
    rules = template.chat
    lines: list[str] = []
    for turn in turns:
        if turn.message:  # empty if the assistant began the conversation
            lines.append(fill(rules.user, {"message": on_one_line(template, turn.message)}))
        lines.append(fill(rules.assistant, {"message": on_one_line(template, turn.reply)}))
    instruction = "".join(
        fill(rules.role_line, {"line": on_one_line(template, line)}) for line in role
    )
    instruction += rules.history_separator.join(lines)
    return instruction or rules.empty_instruction, fill(rules.user, {"message": message})


def system_lines(template: Template, text: str) -> list[str]:
    """Convert a system text to role lines."""
    return [fill(line, {"system": text}) for line in template.chat.system]


def on_one_line(template: AnyTemplate, text: str) -> str:
    """Replace newlines by the training data's spelling, if it has one of its own."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", template.newline) if template.newline else text


def placeholder_values(
    template: Template, instruction: str, input_text: str | None
) -> dict[str, str]:
    """Return the values of the template's placeholders."""
    return {
        "instruction": on_one_line(template, instruction),
        "input": on_one_line(template, input_text or ""),
    }


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """Replace `{name}` placeholders in one pass, so that braces in the values remain text."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), pattern)
