"""Instructions, roles, history and messages -> prompt text and ids, by the manifest's template."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.manifest import Template
from issun.runtime.prefix import common_prefix
from issun.runtime.tokenizer import Tokenizer

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message and its answer."""

    message: str
    reply: str


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """Prompt ids, and how many of the oldest turns were left out to make room.

    The last `continued` ids spell the beginning of the answer.
    """

    ids: list[int]
    dropped_turns: int
    continued: int = 0


class PromptBuilder:
    """Renders the template; special tokens count only where the template itself has them."""

    def __init__(self, template: Template, tokenizer: Tokenizer, n_positions: int) -> None:
        self.template, self._tokenizer, self._n_positions = template, tokenizer, n_positions
        self._with_input = tokenizer.split(template.with_input)
        self._without_input = tokenizer.split(template.without_input)

    def instruction(self, instruction: str, input: str | None = None) -> list[int]:  # noqa: A002
        """Ids of an instruction, with or without an input; ParameterError for an empty one."""
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
        beginning: str = "",
    ) -> FittedPrompt:
        """Ids of the next turn of a conversation, less the oldest turns where not all fit.

        With a `beginning` the prompt ends with that part of the answer. A turn with an empty
        message has only its reply's line.

        A third of those that would fit goes with the ones that must: the prompts of the turns to
        come then begin alike, as long as each is told how many the one before has `dropped`.
        Room is kept for the answer: the template's reserve, or `max_new_tokens` if that is less.
        Raises ContextError when the role and the message alone do not fit, ParameterError for an
        empty message.
        """
        if not message.strip():
            raise ParameterError("The message is empty.")
        reserve = min(self.template.chat.reserve, max_new_tokens)

        def render(count: int) -> list[int]:
            return self._chat_ids(role, turns[count:], message, beginning)

        def fits(count: int) -> bool:
            return len(render(count)) + reserve <= self._n_positions

        # Found by halving: a long conversation is not encoded once for each turn that it lost.
        least = bisect_left(range(len(turns) + 1), True, key=fits)
        if least == 0:
            dropped = 0
        elif not least <= dropped <= least + (len(turns) - least + 1) // 2:  # too few, or too many
            dropped = least + (len(turns) - least) // 3
        ids = render(dropped)
        if least <= len(turns):
            before = self._chat_ids(role, turns[dropped:], message) if beginning else ids
            return FittedPrompt(ids, dropped, len(ids) - common_prefix(ids, before))
        raise ContextError(
            "The role and the message have {tokens:,} tokens and {reserve} are kept for the "
            "answer: {over:,} more than the context of {limit:,}. Shorten the role or the message.",
            tokens=len(ids),
            reserve=reserve,
            over=len(ids) + reserve - self._n_positions,
            limit=self._n_positions,
        )

    def beginnings(self) -> list[list[int]]:
        """Ids with which all prompts with an input begin, and all without one."""
        return [
            _begins(lambda text: self._render(text, text)),
            _begins(lambda text: self._render(text, None)),
        ]

    def before_message(self, role: Sequence[str], turns: Sequence[Turn]) -> list[int]:
        """Ids with which the next prompt of a conversation begins, whatever the message is."""
        return _begins(lambda message: self._chat_ids(role, turns, message))

    def system_lines(self, text: str) -> list[str]:
        """The role lines that a system text becomes."""
        return system_lines(self.template, text)

    def _chat_ids(
        self, role: Sequence[str], turns: Sequence[Turn], message: str, beginning: str = ""
    ) -> list[int]:
        return self._render(*chat_slots(self.template, role, turns, message), beginning)

    def _render(self, instruction: str, input_text: str | None, beginning: str = "") -> list[int]:
        parts = self._without_input if input_text is None else self._with_input
        slots = slots_of(self.template, instruction, input_text)
        if beginning:  # encoded together with the text before it, as the training data is
            slots["beginning"] = on_one_line(self.template, beginning)
            *parts, last = parts
            parts += [last, "{beginning}"] if isinstance(last, int) else [last + "{beginning}"]
        # What fills a slot is encoded as text: it can never become a special token.
        filled = [part if isinstance(part, int) else fill(part, slots) for part in parts]
        return self._tokenizer.encode_parts(filled)


def _begins(make: Callable[[str], list[int]]) -> list[int]:
    """What the ids that are made of a text begin with, whatever the text is."""
    first, second = make("あ"), make("い")
    return first[: common_prefix(first, second)]


def render(template: Template, instruction: str, input_text: str | None) -> str:
    """The whole prompt as one text; encoded with its special tokens it has PromptBuilder's ids.

    That holds for slots without a special token: here one would count as such.
    """
    pattern = template.without_input if input_text is None else template.with_input
    return fill(pattern, slots_of(template, instruction, input_text))


def chat_slots(
    template: Template, role: Sequence[str], turns: Sequence[Turn], message: str
) -> tuple[str, str]:
    """The instruction and the input that a role, turns and the next message become."""
    rules = template.chat
    lines: list[str] = []
    for turn in turns:
        if turn.message:  # none: the assistant began the conversation
            lines.append(fill(rules.user, {"message": on_one_line(template, turn.message)}))
        lines.append(fill(rules.assistant, {"message": on_one_line(template, turn.reply)}))
    instruction = "".join(
        fill(rules.role_line, {"line": on_one_line(template, line)}) for line in role
    )
    instruction += rules.history_separator.join(lines)
    return instruction or rules.empty_instruction, fill(rules.user, {"message": message})


def system_lines(template: Template, text: str) -> list[str]:
    """The role lines that a system text becomes."""
    return [fill(line, {"system": text}) for line in template.chat.system]


def on_one_line(template: Template, text: str) -> str:
    """Spell newlines as the training data does; SentencePiece would lose them."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", template.newline)


def slots_of(template: Template, instruction: str, input_text: str | None) -> dict[str, str]:
    """What fills the slots of the template's patterns."""
    return {
        "instruction": on_one_line(template, instruction),
        "input": on_one_line(template, input_text or ""),
    }


def fill(pattern: str, slots: Mapping[str, str]) -> str:
    """Fill `{name}` slots in one pass, so that braces in what is filled in stay text."""
    return _SLOT.sub(lambda match: slots.get(match[1], match[0]), pattern)
