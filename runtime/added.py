"""Added tokens: where they stand in a text, as the slow tokenizers of transformers find them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from issun.runtime.manifest import AddedToken


@dataclass(slots=True)
class Part:
    """A piece of a text: an added token, or text between two of them."""

    text: str
    token: AddedToken | None = None


class AddedTokens:
    """Some added tokens by their spelling, and how a text is cut at them."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self.by_spelling = dict(tokens)
        self._any = _pattern(tokens)
        self._cased = _pattern(text for text, token in tokens.items() if token.cased)

    def find(self, text: str) -> list[Part]:
        """Cut `text` at the tokens in it; the longest of those that begin first counts."""
        if self._any is None:
            return [Part(text)] if text else []
        return [Part(cut, self.by_spelling.get(cut)) for cut in self._any.split(text) if cut]

    def places(self, text: str) -> list[int]:
        """Where the tokens in `text` begin."""
        return [found.start() for found in self._any.finditer(text)] if self._any else []

    def fit(self, parts: list[Part]) -> list[Part]:
        """Let tokens take the white space beside them, or become text within a word.

        In the order and with the side effects of `PreTrainedTokenizer.tokenize` (transformers
        4.57): what a token changes beside it is looked up anew.
        """
        for place, part in enumerate(parts):
            token = part.token
            if token is None or not (token.lstrip or token.rstrip or token.single_word):
                continue
            before = parts[place - 1] if place else Part("")
            behind = parts[place + 1] if place + 1 < len(parts) else Part("")
            left, right = before.text, behind.text  # as they were, which a single word goes by
            if token.rstrip:
                self._change(behind, right.lstrip())
            if token.lstrip:
                self._change(before, left.rstrip())
            if token.single_word and left and left[-1] != " ":
                self._change(before, before.text + part.text)
                self._change(part, "")
            elif token.single_word and right and right[0] != " ":
                self._change(behind, part.text + behind.text)
                self._change(part, "")
        return [part for part in parts if part.text]

    def lower(self, text: str) -> str:
        """Lower-case `text`, but for the tokens that are looked for as they are."""
        if self._cased is None:
            return lower(text)
        cuts = self._cased.split(text)  # every second one is a token
        cuts[::2] = map(lower, cuts[::2])
        return "".join(cuts)

    def _change(self, part: Part, text: str) -> None:
        if text != part.text:
            part.text, part.token = text, self.by_spelling.get(text)


def lower(text: str) -> str:
    """Lower-case character by character as the reference does: "Σ" is never the final sigma."""
    return "".join(map(str.lower, text))


def _pattern(spellings: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(spellings, key=len, reverse=True)
    return (
        re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
    )
