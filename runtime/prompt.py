"""Renders instructions, roles, history and messages as prompt ids, using the bundle's template."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.manifest import Template
from issun.runtime.prefix import common_prefix
from issun.runtime.tokenizer import Tokenizer

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message and its answer."""

    message: str
    reply: str


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """Prompt ids, and how many of the oldest turns were dropped to make them fit.

    The last `continued` ids are the given beginning of the answer.
    """

    ids: list[int]
    dropped_turns: int
    continued: int = 0


class PromptBuilder:
    """Renders the template; only special tokens of the template itself count as special."""

    def __init__(self, template: Template, tokenizer: Tokenizer, n_positions: int) -> None:
        self.template, self._tokenizer, self._n_positions = template, tokenizer, n_positions
        self._with_input = tokenizer.split(template.with_input)
        self._without_input = tokenizer.split(template.without_input)

    def instruction(self, instruction: str, input: str | None = None) -> list[int]:  # noqa: A002
        """Return the ids of an instruction with optional input; ParameterError if it is empty."""
        if not instruction.strip():
            raise ParameterError("The instruction is empty.")
        return self._render(instruction, input or None)

    def chat(
        self,
        role: Sequence[str],
        turns: Sequence[Turn],
        message: str,
        *,
        max_new_tokens: int,
        dropped: int = 0,
        answer_prefix: str = "",
    ) -> FittedPrompt:
        """Return the ids of a conversation's next turn, dropping the oldest turns if needed.

        With `answer_prefix`, the prompt ends with that beginning of the answer. A turn with an
        empty message is rendered as its reply only.

        If turns must be dropped, a third of the others is dropped too, so that the next prompts
        keep the same prefix; for this, pass the previous prompt's `dropped_turns` as `dropped`. The
        prompt leaves room for the template's reserve, or for `max_new_tokens` if that is less.
        Raises ContextError if the role and the message alone do not fit, ParameterError for an
        empty message.
        """
        if not message.strip():
            raise ParameterError("The message is empty.")
        reserve = min(self.template.chat.reserve, max_new_tokens)

        def render(count: int) -> list[int]:
            return self._chat_ids(role, turns[count:], message, answer_prefix)

        def fits(count: int) -> bool:
            return len(render(count)) + reserve <= self._n_positions

        # Binary search, so that a long conversation is not encoded once per dropped turn.
        least = bisect_left(range(len(turns) + 1), True, key=fits)
        if least == 0:
            dropped = 0
        elif not least <= dropped <= least + (len(turns) - least + 1) // 2:  # too few or too many
            dropped = least + (len(turns) - least) // 3
        ids = render(dropped)
        if least <= len(turns):
            before = self._chat_ids(role, turns[dropped:], message) if answer_prefix else ids
            return FittedPrompt(ids, dropped, len(ids) - common_prefix(ids, before))
        raise ContextError(
            "The role and the message have {tokens:,} tokens, and {reserve} are reserved for "
            "the answer: {over:,} more than the context of {limit:,}. Shorten the role or the "
            "message.",
            tokens=len(ids),
            reserve=reserve,
            over=len(ids) + reserve - self._n_positions,
            limit=self._n_positions,
        )

    def constant_prefixes(self) -> list[list[int]]:
        """Return the common prefix of all prompts with an input, and of all without."""
        return [
            _constant_prefix(lambda text: self._render(text, text)),
            _constant_prefix(lambda text: self._render(text, None)),
        ]

    def before_message(self, role: Sequence[str], turns: Sequence[Turn]) -> list[int]:
        """Return the prefix of a conversation's next prompt that no message can change."""
        return _constant_prefix(lambda message: self._chat_ids(role, turns, message))

    def system_lines(self, text: str) -> list[str]:
        """Convert a system text to role lines."""
        return system_lines(self.template, text)

    def _chat_ids(
        self, role: Sequence[str], turns: Sequence[Turn], message: str, answer_prefix: str = ""
    ) -> list[int]:
        return self._render(*chat_values(self.template, role, turns, message), answer_prefix)

    def _render(
        self, instruction: str, input_text: str | None, answer_prefix: str = ""
    ) -> list[int]:
        parts = self._without_input if input_text is None else self._with_input
        values = placeholder_values(self.template, instruction, input_text)
        if answer_prefix:  # encoded together with the text before it, as in the training data
            values["answer_prefix"] = on_one_line(self.template, answer_prefix)
            *parts, last = parts
            parts += (
                [last, "{answer_prefix}"] if isinstance(last, int) else [last + "{answer_prefix}"]
            )
        # User text is encoded as plain text, so it cannot produce a special token.
        filled = [part if isinstance(part, int) else fill(part, values) for part in parts]
        return self._tokenizer.encode_parts(filled)


def _constant_prefix(make: Callable[[str], list[int]]) -> list[int]:
    """Return the prefix of `make(text)` that is the same for every text."""
    first, second = make("あ"), make("い")
    return first[: common_prefix(first, second)]


def render(template: Template, instruction: str, input_text: str | None) -> str:
    """Render the prompt as text; encoded with special tokens it has the ids of PromptBuilder.

    This holds only if the values have no special tokens, which would count as such here.
    """
    pattern = template.without_input if input_text is None else template.with_input
    return fill(pattern, placeholder_values(template, instruction, input_text))


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


def on_one_line(template: Template, text: str) -> str:
    """Replace newlines by the training data's spelling; SentencePiece would drop them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", template.newline)


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
