"""The literals that were asked for, in place of those that the vocabulary could spell."""

from __future__ import annotations

from collections.abc import Mapping


class WholeText:
    """An answer that is one literal: it is given when it is whole."""

    def __init__(self, originals: Mapping[str, str]) -> None:
        self._originals, self._text = originals, ""

    def push(self, text: str) -> str:
        """Nothing yet."""
        self._text += text
        return ""

    def finish(self) -> str:
        """The literal."""
        text = self.cut()
        return self._originals.get(text, text)

    def cut(self) -> str:
        """The answer so far, as it was spelled."""
        text, self._text = self._text, ""
        return text
