"""Chat templates in Jinja: messages to ids, as by `apply_chat_template` of transformers 4.57."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby

from issun.runtime.errors import ParameterError
from issun.runtime.manifest import JinjaTemplate
from issun.runtime.text.jinja import Message, Renderer
from issun.runtime.text.slot_template import on_one_line
from issun.runtime.text.tokenizer import Tokenizer
from issun.runtime.text.turn import Turn

_PARAGRAPH = "\n\n"  # between a text and an input, or a role and a message, of the same speaker
# Unicode's private use areas: no text needs all of them.
_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class JinjaFormat:
    """Renders a conversation as messages; a role is a system text.

    What a user types never becomes a special token: a mark is put in front of each token that a
    text spells, and only the tokens without one are the template's own. The text between two of
    these is encoded in one piece, so the ids are those of transformers if no text spells a token.
    """

    def __init__(self, template: JinjaTemplate, tokenizer: Tokenizer) -> None:
        self._template, self._tokenizer = template, tokenizer
        self._renderer = Renderer(template)
        self.reserve = template.reserve

    def instruction(
        self, instruction: str, input_text: str | None, answer_prefix: str = ""
    ) -> list[int]:
        """Return the ids of a message that has the instruction and the input, as paragraphs."""
        text = instruction if input_text is None else instruction + _PARAGRAPH + input_text
        return self.ids([_message("user", text)], answer_prefix)

    def chat(
        self,
        role: Sequence[str],
        turns: Sequence[Turn],
        message: str,
        answer_prefix: str = "",
        *,
        dropped: bool = False,  # no such template marks it
    ) -> list[int]:
        """Return the ids of a conversation's next prompt, with all turns."""
        spoken = []
        for turn in turns:
            if turn.message:  # empty if the assistant began the conversation
                spoken.append(_message("user", turn.message))
            spoken.append(_message("assistant", turn.reply))
        spoken.append(_message("user", message))
        return self.ids(self._with_system("\n".join(role), spoken), answer_prefix)

    def system_lines(self, text: str) -> list[str]:
        """Return the system text, whose own lines are kept together."""
        return [text]

    def file_lines(self, text: str) -> list[str]:
        """Return the text of a role file as a system text."""
        return [stripped] if (stripped := text.strip()) else []

    def close(self) -> None:
        """End the process that renders."""
        self._renderer.close()

    def ids(self, messages: Sequence[Message], answer_prefix: str = "") -> list[int]:
        """Return the ids of the prompt for `messages`, which ends with `answer_prefix`."""
        texts = [message["content"] for message in messages]
        mark = _unused_character([self._template.source, *texts, answer_prefix])
        marked = [
            {**message, "content": self._mark(text, mark)}
            for message, text in zip(messages, texts, strict=True)
        ]
        prefix = on_one_line(self._template, self._mark(answer_prefix, mark))
        rendered = self._renderer.render(marked) + prefix
        return self._tokenizer.encode_parts(self._parts(rendered, mark))

    def _with_system(self, system: str, spoken: list[Message]) -> list[Message]:
        if not system.strip():
            return spoken
        if self._template.takes_system:
            return [_message("system", system), *spoken]
        first, *others = spoken
        if first["role"] == "assistant":
            return [_message("user", system), *spoken]
        return [_message("user", system + _PARAGRAPH + first["content"]), *others]

    def _mark(self, text: str, mark: str) -> str:
        """Put the mark in front of every special token in `text` that is not white space.

        A template that strips texts must still find white space at their ends.
        """
        parts = self._tokenizer.split(text)
        spelled = ((p, self._spelled(p) if isinstance(p, int) else p) for p in parts)
        return "".join(
            mark + text if isinstance(part, int) and not text.isspace() else text
            for part, text in spelled
        )

    def _parts(self, rendered: str, mark: str) -> list[str | int]:
        """Split `rendered` at the template's own special tokens, and remove the marks."""
        parts: list[str | int] = []
        for is_text, group in groupby(self._cut(rendered, mark), lambda p: isinstance(p, str)):
            if is_text:
                text = "".join(map(str, group)).replace(mark, "")
                parts += [text] if text else []
            else:
                parts += group
        return parts

    def _cut(self, rendered: str, mark: str) -> Iterator[str | int]:
        """Split `rendered` at special tokens; those with a mark are texts again."""
        before: str | int = ""
        for part in self._tokenizer.split(rendered):
            marked = isinstance(before, str) and before.endswith(mark)
            yield self._spelled(part) if isinstance(part, int) and marked else part
            before = part

    def _spelled(self, token: int) -> str:
        return self._tokenizer.piece(token).decode()


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _unused_character(texts: Iterable[str]) -> str:
    """Return a private-use character that none of the texts has."""
    used = set().union(*texts)
    found = next((c for c in map(chr, chain(*_PRIVATE)) if c not in used), None)
    if found is None:
        raise ParameterError("The messages have every private-use character of Unicode.")
    return found
