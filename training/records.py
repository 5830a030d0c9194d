r"""Instructions and chats as training records: one line each, in the prompt format of issun.

A record is the prompt, the answer and `\n</s>`, with newlines spelled as backslash + n.
`python -m issun.training.records IN OUT` converts a file, see `issun.training.data`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from issun.export.template import ALPACA
from issun.runtime.errors import IssunError
from issun.runtime.prompt import Turn, chat_slots, on_one_line, render, system_lines
from issun.training.errors import RecordError

BOS, EOS = "<s>", "</s>"
SPECIAL_TOKENS = (BOS, EOS, "<unk>", "[PAD]", "[CLS]", "[SEP]", "[MASK]")


def instruction_record(
    instruction: str,
    input: str | None,  # noqa: A002
    output: str,
    *,
    special: Iterable[str] = SPECIAL_TOKENS,
) -> str:
    """The record of an instruction, its input if there is any, and the answer.

    Raises RecordError for an empty instruction or answer, and for a text that spells one of the
    `special` tokens in upper or lower case: it would become that token.
    """
    _check({"instruction": instruction, "input": input or "", "output": output}, special)
    _check_filled(instruction=instruction, output=output)
    return _record(instruction, input or None, output)


def chat_record(
    role: Sequence[str] | str,
    turns: Sequence[Turn],
    message: str,
    answer: str,
    *,
    special: Iterable[str] = SPECIAL_TOKENS,
) -> str:
    """The record of the next message of a chat and its answer; raises as `instruction_record`.

    `role` is as `Conversation` takes it: lines such as `User:...` and `Assistant:...`, or one
    text, which the template's system lines wrap.
    """
    lines = _role_lines(role)
    history = [text for turn in turns for text in (turn.message, turn.reply)]
    _check(
        {
            "role": "\n".join(lines),
            "history": "\n".join(history),
            "message": message,
            "answer": answer,
        },
        special,
    )
    _check_filled(message=message, answer=answer)
    return _record(*chat_slots(ALPACA, lines, turns, message), answer)


def _role_lines(role: Sequence[str] | str) -> list[str]:
    if isinstance(role, str):
        return system_lines(ALPACA, role) if role.strip() else []
    return list(role)


def _record(instruction: str, input_text: str | None, answer: str) -> str:
    text = render(ALPACA, instruction, input_text)
    text += on_one_line(ALPACA, answer) + ALPACA.newline + EOS
    # As the tokenizer reads it: pairs of surrogates join, lone ones become U+FFFD.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _check(texts: dict[str, str], special: Iterable[str]) -> None:
    pattern = re.compile("|".join(map(re.escape, special)), re.IGNORECASE)
    for name, text in texts.items():
        if found := pattern.search(text):
            raise RecordError(
                "No record can be made: {reason}", reason=f"`{name}` holds the token {found[0]}"
            )


def _check_filled(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip():
            raise RecordError("No record can be made: {reason}", reason=f"`{name}` is empty")


def main() -> int:
    """Read the command line and convert a file: 0 well, 2 for a user's mistake."""
    from issun.training.data import convert  # noqa: PLC0415 - it uses this module

    parser = argparse.ArgumentParser(prog="issun.training.records", description=__doc__)
    parser.add_argument("data", metavar="IN", type=Path, help="JSON, JSONL, or records as .txt")
    parser.add_argument("target", metavar="OUT", type=Path, help="new file, one record a line")
    args = parser.parse_args()
    try:
        count = convert(args.data, args.target)
    except IssunError as error:
        print("error:", *str(error).split(), file=sys.stderr)
        return 2
    print(f"{args.target}: {count:,} records", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
