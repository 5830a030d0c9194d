r"""Training records from instructions and chats: one line each, in issun's prompt format.

A record is the prompt, the answer and `\n</s>`, with each newline written as a backslash and an n.
`issun.training.convert` writes those of a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from issun.export.template import ALPACA
from issun.runtime.text.added import without_surrogates
from issun.runtime.text.prompt import PromptFormat
from issun.runtime.text.slot_template import (
    chat_values,
    fill,
    on_one_line,
    placeholder_values,
    system_lines,
)
from issun.runtime.text.tokenizer import Tokenizer
from issun.runtime.text.turn import Turn
from issun.training.errors import RecordError

BOS, EOS = "<s>", "</s>"
SPECIAL_TOKENS = (BOS, EOS, "<unk>", "[PAD]", "[CLS]", "[SEP]", "[MASK]")


class Chat(NamedTuple):
    """What a chat's example was made from; `role` is as for `chat_example`."""

    role: Sequence[str] | str
    turns: Sequence[Turn]
    message: str


@dataclass(frozen=True, slots=True)
class Example:
    """The values for the placeholders of the prompt template, and the answer.

    A special token spelled in one of the three texts is encoded as text, as in a prompt.
    """

    instruction: str
    input: str | None
    answer: str
    chat: Chat | None = field(default=None, compare=False)

    def text(self) -> str:
        """The record as one line; a special token spelled in the texts becomes that token."""
        return without_surrogates(fill(self._pattern(), self._slots()))

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """The token ids of the record; only the template's own special tokens are special."""
        slots, ids = self._slots(), list[int]()
        for part in tokenizer.split(self._pattern()):
            ids += [part] if isinstance(part, int) else tokenizer.encode(fill(part, slots))
        return ids

    def encode_in(self, prompt: PromptFormat, eos: int) -> list[int]:
        """The token ids of the prompt in another format, the answer, and the end token `eos`."""
        if self.chat is None:
            return [*prompt.instruction(self.instruction, self.input, self.answer), eos]
        role, turns, message = self.chat
        lines = _role_lines(role, prompt.system_lines)
        return [*prompt.chat(lines, turns, message, self.answer), eos]

    def spelled(self, special: Iterable[str]) -> str | None:
        """The first of the `special` tokens that its texts spell, in upper or lower case."""
        pattern = re.compile("|".join(map(re.escape, special)), re.IGNORECASE)
        texts = (self.instruction, self.input or "", self.answer)
        return next((found[0] for found in map(pattern.search, texts) if found), None)

    def _pattern(self) -> str:
        before = ALPACA.without_input if self.input is None else ALPACA.with_input
        return before + "{answer}" + ALPACA.newline + EOS

    def _slots(self) -> dict[str, str]:
        slots = placeholder_values(ALPACA, self.instruction, self.input)
        return slots | {"answer": on_one_line(ALPACA, self.answer)}


def instruction_example(instruction: str, input: str | None, output: str) -> Example:  # noqa: A002
    """The example of an instruction, an optional input and an answer; RecordError if empty."""
    _check_filled(instruction=instruction, output=output)
    return Example(instruction, input or None, output)


def chat_example(
    role: Sequence[str] | str, turns: Sequence[Turn], message: str, answer: str
) -> Example:
    """The example of the next message of a chat and its answer; raises RecordError if empty.

    `role` is as for `Conversation`: lines such as `User:...` and `Assistant:...`, or a text, which
    is put into the template's system lines.
    """
    _check_filled(message=message, answer=answer)
    values = chat_values(ALPACA, _role_lines(role, partial(system_lines, ALPACA)), turns, message)
    return Example(*values, answer, Chat(role, turns, message))


def instruction_record(
    instruction: str,
    input: str | None,  # noqa: A002
    output: str,
    *,
    special: Iterable[str] = SPECIAL_TOKENS,
) -> str:
    """The record of an instruction as one line of text.

    Raises RecordError for an empty instruction or answer, and for a text that spells one of the
    `special` tokens in upper or lower case, since it would be encoded as that token.
    """
    return record_text(instruction_example(instruction, input, output), special)


def chat_record(
    role: Sequence[str] | str,
    turns: Sequence[Turn],
    message: str,
    answer: str,
    *,
    special: Iterable[str] = SPECIAL_TOKENS,
) -> str:
    """The record of a chat's next message and its answer; raises as `instruction_record` does."""
    return record_text(chat_example(role, turns, message, answer), special)


def record_text(example: Example, special: Iterable[str] = SPECIAL_TOKENS) -> str:
    """The record as one line; raises RecordError if a text spells a special token."""
    if found := example.spelled(special):
        raise RecordError(
            "Not a valid record: {reason}",
            reason=f"its text contains {found}, which would become a special token",
        )
    return example.text()


def _role_lines(
    role: Sequence[str] | str, system_lines: Callable[[str], list[str]]
) -> Sequence[str]:
    """The lines of a role; `system_lines` converts a text."""
    if isinstance(role, str):
        return system_lines(role) if role.strip() else []
    return role


def _check_filled(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise RecordError("Not a valid record: {reason}", reason=f"`{name}` is empty")
