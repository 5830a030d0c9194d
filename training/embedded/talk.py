"""Fixed answers to many wordings."""

from __future__ import annotations

from typing import NamedTuple


class Talk(NamedTuple):
    """Messages with the same meaning (the last two are held out), and their answer template."""

    messages: tuple[str, ...]
    answer: str
    right: tuple[str, ...]  # a right answer contains one of these


def each(heads: tuple[str, ...], tails: tuple[str, ...]) -> tuple[str, ...]:
    """Every head with every tail."""
    return tuple(head + tail for head in heads for tail in tails)


def talk(messages: str, answer: str, *right: str) -> Talk:
    """A `Talk` with messages separated by spaces; `_` is a space in a message."""
    return Talk(tuple(m.replace("_", " ") for m in messages.split()), answer, right)
