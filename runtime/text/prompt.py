"""Renders instructions, roles, history and messages as prompt ids, using the bundle's template."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from issun.runtime.errors import ContextError, ParameterError
from issun.runtime.manifest import AnyTemplate, Manifest, Template
from issun.runtime.text.prefix import common_prefix
from issun.runtime.text.slot_template import SlotFormat
from issun.runtime.text.tokenizer import Tokenizer
from issun.runtime.text.turn import Turn


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """Prompt ids, and how many of the oldest turns were dropped to make them fit.

    The last `continued` ids are the given beginning of the answer.
    """

    ids: list[int]
    dropped_turns: int
    continued: int = 0


class PromptFormat(Protocol):
    """A kind of template. `reserve` is the number of tokens to keep free for the answer."""

    reserve: int

    def instruction(
        self, instruction: str, input_text: str | None, answer_prefix: str = ""
    ) -> list[int]:
        """Return the ids of an instruction with optional input."""

    def chat(
        self,
        role: Sequence[str],
        turns: Sequence[Turn],
        message: str,
        answer_prefix: str = "",
        *,
        dropped: bool = False,
    ) -> list[int]:
        """Return the ids of a conversation's next prompt, with all turns.

        `dropped` says whether older turns are missing, which the template may mark.
        """

    def system_lines(self, text: str) -> list[str]:
        """Convert a system text to role lines."""

    def file_lines(self, text: str) -> list[str]:
        """Convert the text of a role file to role lines."""

    def close(self) -> None:
        """Free what the format holds."""


class PromptBuilder:
    """Makes prompts in a bundle's format; what a user types never becomes a special token."""

    @classmethod
    def of(cls, manifest: Manifest, tokenizer: Tokenizer) -> Self:
        """Return the builder of a bundle."""
        return cls(manifest.prompt, tokenizer, manifest.architecture.n_positions)

    def __init__(self, template: AnyTemplate, tokenizer: Tokenizer, n_positions: int) -> None:
        self.template, self._n_positions = template, n_positions
        self._format = open_format(template, tokenizer)

    def instruction(self, instruction: str, input: str | None = None) -> list[int]:  # noqa: A002
        """Return the ids of an instruction with optional input.

        Raises ParameterError if it is empty, TemplateError if the template fails.
        """
        if not instruction.strip():
            raise ParameterError("The instruction is empty.")
        return self._format.instruction(instruction, input or None)

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
        empty message, TemplateError if the template fails or refuses the conversation.
        """
        if not message.strip():
            raise ParameterError("The message is empty.")
        reserve = min(self._format.reserve, max_new_tokens)

        def render(count: int) -> list[int]:
            return self._chat(role, turns, message, count, answer_prefix)

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
            before = self._chat(role, turns, message, dropped) if answer_prefix else ids
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
            _constant_prefix(lambda text: self._format.instruction(text, text)),
            _constant_prefix(lambda text: self._format.instruction(text, None)),
        ]

    def before_message(
        self, role: Sequence[str], turns: Sequence[Turn], *, dropped: int = 0
    ) -> list[int]:
        """Return the prefix of a conversation's next prompt that no message can change.

        The `dropped` oldest turns are left out.
        """
        return _constant_prefix(lambda message: self._chat(role, turns, message, dropped))

    def _chat(
        self,
        role: Sequence[str],
        turns: Sequence[Turn],
        message: str,
        dropped: int,
        answer_prefix: str = "",
    ) -> list[int]:
        """Return the prompt without the `dropped` oldest turns."""
        kept = turns[dropped:]
        return self._format.chat(role, kept, message, answer_prefix, dropped=dropped > 0)

    def system_lines(self, text: str) -> list[str]:
        """Convert a system text to role lines."""
        return self._format.system_lines(text)

    def file_lines(self, text: str) -> list[str]:
        """Convert the text of a role file to role lines."""
        return self._format.file_lines(text)

    def close(self) -> None:
        """Free what the format holds; a chat template in Jinja then raises BusyError."""
        self._format.close()


def open_format(template: AnyTemplate, tokenizer: Tokenizer) -> PromptFormat:
    """Return the format of a template; close it after use."""
    if isinstance(template, Template):
        return SlotFormat(template, tokenizer)
    # Most bundles need no child process, nor the modules to start one.
    from issun.runtime.text.chat_template import JinjaFormat  # noqa: PLC0415

    return JinjaFormat(template, tokenizer)


def _constant_prefix(make: Callable[[str], list[int]]) -> list[int]:
    """Return the prefix of `make(text)` that is the same for every text."""
    first, second = make("あ"), make("い")
    return first[: common_prefix(first, second)]
