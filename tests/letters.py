"""A tokenizer whose tokens are characters, and the special tokens of all chat templates."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.chat_shapes import SHAPES

_MORE = ("<s>", "</s>", "[SEP]", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
SPECIAL = sorted({token for shape in SHAPES.values() for token in shape.special}.union(
    _MORE, ("[INST]", "[/INST]", "\n\n\n")
))  # fmt: skip


class Letters:
    """Characters are their code points; ids below zero are special tokens."""

    def __init__(self) -> None:
        self.special = {token: -i - 1 for i, token in enumerate(SPECIAL)}
        longest = sorted(SPECIAL, key=len, reverse=True)
        self._cut = re.compile("(" + "|".join(map(re.escape, longest)) + ")")

    def split(self, text: str) -> list[str | int]:
        return [self.special.get(part, part) for part in self._cut.split(text) if part]

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        return [i for p in parts for i in ([p] if isinstance(p, int) else map(ord, p))]

    def piece(self, token: int) -> bytes:
        return SPECIAL[-token - 1].encode()

    def text(self, ids: Iterable[int]) -> str:
        """Return the ids as text, with special tokens in `«»`."""
        return "".join(chr(i) if i >= 0 else f"«{SPECIAL[-i - 1]}»" for i in ids)
