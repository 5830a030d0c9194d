"""Finds added tokens in a text, as the slow tokenizers of transformers do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from issun.runtime.manifest import AddedToken


@dataclass(slots=True)
class Part:
    """A piece of a text: an added token, or the text between two of them."""

    text: str
    token: AddedToken | None = None


class AddedTokens:
    """Added tokens by their spelling; splits texts at them."""

    def __init__(self, tokens: Mapping[str, AddedToken]) -> None:
        self.by_spelling = dict(tokens)
        self._any = _pattern(tokens)
        self._cased = _pattern(text for text, token in tokens.items() if token.cased)

    def find(self, text: str) -> list[Part]:
        """Split `text` at the tokens in it; of those at the same place, the longest one counts."""
        if self._any is None:
            return [Part(text)] if text else []
        return [Part(cut, self.by_spelling.get(cut)) for cut in self._any.split(text) if cut]

    def positions(self, text: str) -> list[int]:
        """Return where the tokens in `text` begin."""
        return [found.start() for found in self._any.finditer(text)] if self._any else []

    def apply_flags(self, parts: list[Part]) -> list[Part]:
        """Strip white space next to tokens, and make tokens within a word text, by their flags.

        Follows the order and the side effects of `PreTrainedTokenizer.tokenize` (transformers
        4.57): a neighbour whose text changes is looked up again.
        """
        for index, part in enumerate(parts):
            token = part.token
            if token is None or not (token.lstrip or token.rstrip or token.single_word):
                continue
            before = parts[index - 1] if index else Part("")
            after = parts[index + 1] if index + 1 < len(parts) else Part("")
            left, right = before.text, after.text  # unchanged: `single_word` refers to these
            if token.rstrip:
                self._set_text(after, right.lstrip())
            if token.lstrip:
                self._set_text(before, left.rstrip())
            if token.single_word and left and left[-1] != " ":
                self._set_text(before, before.text + part.text)
                self._set_text(part, "")
            elif token.single_word and right and right[0] != " ":
                self._set_text(after, part.text + after.text)
                self._set_text(part, "")
        return [part for part in parts if part.text]

    def lower(self, text: str) -> str:
        """Lower-case `text` except for the tokens that are case-sensitive."""
        if self._cased is None:
            return lower(text)
        cuts = self._cased.split(text)  # every second one is a token
        cuts[::2] = map(lower, cuts[::2])
        return "".join(cuts)

    def _set_text(self, part: Part, text: str) -> None:
        if text != part.text:
            part.text, part.token = text, self.by_spelling.get(text)


def lower(text: str) -> str:
    """Lower-case character by character like the reference: "Σ" never becomes a final sigma."""
    return "".join(map(str.lower, text))


def without_surrogates(text: str) -> str:
    """Join surrogate pairs; lone ones, which tokenizers reject, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _pattern(spellings: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(spellings, key=len, reverse=True)
    return (
        re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
    )
