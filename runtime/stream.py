"""ids -> text segments that join to exactly the text of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from issun.runtime.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"


class Restorer(Protocol):
    """Puts the literals that were asked for in place of those that were spelled."""

    def push(self, text: str) -> str:
        """What is certain after `text`."""

    def finish(self) -> str:
        """The rest of a whole answer."""

    def cut(self) -> str:
        """The rest of an answer that is cut, as it was spelled."""


class Detokenizer:
    """Decodes token by token: the pieces that `push` and `finish` give join to `decode(ids)`.

    Bytes of a character that is not complete are held back, never dropped.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # ids whose decoding may still change, behind an anchor
        self._given = 0  # characters of the window's text that were given out

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        self._window.append(token)
        text, alone = self._tokenizer.decode(self._window), self._tokenizer.decode([token])
        # A byte, or a control token behind one, does not say yet what becomes of the bytes before.
        whole = alone != "" and not self._tokenizer.is_byte(token)
        if not whole:
            text = text.rstrip(_REPLACEMENT)
        new = text[self._given :]
        self._given = max(self._given, len(text))
        if whole:
            # The last piece stays as the anchor: behind it nothing is stripped from a piece.
            self._window, self._given = [token], len(alone)
        return new

    def finish(self) -> str:
        """The text of bytes that never became a character."""
        text = self._tokenizer.decode(self._window)
        new = text[self._given :]
        self._given = len(text)
        return new


class TextStream:
    """What a reader sees of an answer: newlines made real, cut before a stop string.

    The segments of `push` and `finish` join to the text of the whole answer: its decoded text
    with the template's newline spelling replaced, ended before the stop string that is complete
    first, and less one newline at the end. Text that may become something else is held back: half
    a newline spelling, a newline that may be the last, the start of a stop string. An answer that
    is cut, by its length or by the reader, ends with `pause`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        newline: str = "",
        stop: Sequence[str] = (),
        *,
        last: str = "\n",
        restorer: Restorer | None = None,
    ) -> None:
        """Leave out `last` where the text ends with it; `restorer` has the last word about it."""
        self._detokenizer = Detokenizer(tokenizer)
        self._newline, self._stop, self._last = newline, tuple(stop), last
        self._restorer = restorer
        self._raw = ""  # decoded, newline spelling not yet replaced
        self._text = ""  # replaced, not yet given out
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain after `token`; nothing more comes once `stopped`."""
        if self.stopped:
            return ""
        self._raw += self._detokenizer.push(token)
        self._replace_newlines()
        if self._cut_at_stop():
            return self._give(len(self._text.removesuffix(self._last)))
        certain = self._text[: len(self._text) - partial_suffix(self._text, self._stop)]
        return self._give(len(certain.removesuffix(self._last)))

    def skip(self, ids: Sequence[int]) -> None:
        """Begin behind `ids`, whose text a reader has seen as far as `pause` gave it."""
        stop, self._stop = self._stop, ()
        for token in ids:
            self.push(token)
        self._stop = stop

    def follow(self, ids: Sequence[int]) -> None:
        """Begin behind `ids`, whose whole text a reader has."""
        self.skip(ids)
        self._raw = self._text = ""

    def pause(self) -> str:
        """The rest of the text when it is cut here, but no half of a character or newline."""
        if self._restorer:
            self._text += self._restorer.cut()
        return self._give(len(self._text.removesuffix(self._last)))

    def finish(self) -> str:
        """The rest of the text, when no more tokens come."""
        if self.stopped:
            return ""
        self._raw += self._detokenizer.finish()
        self._replace_newlines(final=True)
        self._cut_at_stop()
        return self.pause()

    def _replace_newlines(self, *, final: bool = False) -> None:
        """Move what is decided from `_raw` to `_text`; unless `final`, half a spelling waits."""
        *lines, rest = self._raw.split(self._newline) if self._newline else [self._raw]
        held = 0 if final else partial_suffix(rest, (self._newline,))
        self._raw = rest[len(rest) - held :]
        text = "\n".join([*lines, rest[: len(rest) - held]])
        if self._restorer:
            text = self._restorer.push(text) + (self._restorer.finish() if final else "")
        self._text += text

    def _cut_at_stop(self) -> bool:
        """End the text before the stop string whose end comes first (of two, the longer)."""
        found = [(self._text.find(s) + len(s), -len(s)) for s in self._stop if s in self._text]
        if found:
            end, length = min(found)
            self._text = self._text[: end + length]
            self.stopped = True
        return self.stopped

    def _give(self, count: int) -> str:
        given, self._text = self._text[:count], self._text[count:]
        return given


def partial_suffix(text: str, wanted: Sequence[str]) -> int:
    """Length of the longest end of `text` that is a true beginning of one of `wanted`."""
    longest = max((len(w) - 1 for w in wanted), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(len(w) > length and w.startswith(text[-length:]) for w in wanted):
            return length
    return 0
