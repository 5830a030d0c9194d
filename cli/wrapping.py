"""Wraps text by display width: wide characters take two columns of a terminal."""

from __future__ import annotations

import re
import unicodedata

_OPENING = "（「『［【〈《([{"
_CLOSING = "、。，．・：；！？）」』］】〉》)]}ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々…"
_WIDE = "\u2e80-\uffff"
# What a line may not be broken in: a word, or a wide character, with the brackets and
# punctuation that belong to it.
_PIECE = re.compile(
    rf"\s+|\[[^]]{{,40}}\]|[{re.escape(_OPENING)}]*(?:[^\s{_WIDE}]+|[{_WIDE}])[{re.escape(_CLOSING)}]*"
)


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns; a longer word has a line of its own."""
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        if line and columns(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece if line or not piece.isspace() else ""
    return [*lines, line.rstrip()]
