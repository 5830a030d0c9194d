"""Token ids to text segments, whose concatenation is exactly the text of all ids."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import Protocol

from issun.runtime.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"
_UTF_8 = 4  # bytes of a character at most
_MAX_HELD = 128  # bytes of a run that are held back until it ends


class Restorer(Protocol):
    """Replaces literals as the vocabulary spells them by the literals of the schema."""

    def push(self, text: str) -> str:
        """Add `text` and return what is final."""

    def finish(self) -> str:
        """Return the rest of a complete answer."""

    def cut(self) -> str:
        """Return the rest of a truncated answer, without replacement."""


class Detokenizer:
    """Decodes token by token: the text from `push` and `finish` joins to `decode(ids)`.

    The bytes of an incomplete character are held back, never dropped.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # ids whose text may still change, after one decoded token
        self._emitted = 0  # characters of the window's text that were returned

    def push(self, token: int) -> str:
        """Return the text that `token` completes."""
        self._window.append(token)
        text, alone = self._tokenizer.decode(self._window), self._tokenizer.decode([token])
        # After a byte piece, or a control token following one, the bytes may still be incomplete.
        whole = alone != "" and not self._tokenizer.is_byte(token)
        if not whole:
            # A byte that is yet to come may make the whole run invalid, but a run may be long.
            held = self._tokenizer.whole_runs and len(self._window) <= _MAX_HELD
            return "" if held else self.pause()
        new = text[self._emitted :]
        # Keep the last piece: SentencePiece strips the leading space of a first piece only.
        self._window, self._emitted = [token], len(alone)
        return new

    def pause(self) -> str:
        """Return the complete characters that were held back; those that follow may still come."""
        window = self._window
        parts = (window[: len(window) - missing] for missing in range(min(len(window), _UTF_8)))
        texts = (self._tokenizer.decode(part).rstrip(_REPLACEMENT) for part in parts)
        return self._emit(max(texts, key=len, default=""))

    def held(self, token: int) -> str:
        """Return what is held back of the text before `token`, which may complete a character."""
        text = self._tokenizer.decode(self._window)
        if self._tokenizer.is_byte(token):
            text = text.rstrip(_REPLACEMENT)
        return text[self._emitted :]

    def finish(self) -> str:
        """Return the text of trailing bytes that do not form a character."""
        return self._emit(self._tokenizer.decode(self._window))

    def _emit(self, text: str) -> str:
        new = text[self._emitted :]
        self._emitted = max(self._emitted, len(text))
        return new


class ByteDetokenizer:
    """A `Detokenizer` for tokens that may begin and end within a character (byte-level BPE)."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that `token` completes."""
        if self._tokenizer.is_textless(token):
            return ""
        return self._decoder.decode(self._tokenizer.piece(token))

    def pause(self) -> str:
        """Return nothing: complete characters are not held back."""
        return ""

    def held(self, token: int) -> str:
        """Return the replacement of an incomplete character that `token` does not continue."""
        spelled = b"" if self._tokenizer.is_textless(token) else self._tokenizer.piece(token)
        if not spelled or b"\x80" <= spelled[:1] < b"\xc0":
            return ""
        incomplete, _ = self._decoder.getstate()
        return incomplete.decode("utf-8", "replace")

    def finish(self) -> str:
        """Return the text of trailing bytes that do not form a character."""
        return self._decoder.decode(b"", final=True)


def make_detokenizer(tokenizer: Tokenizer) -> Detokenizer | ByteDetokenizer:
    """Return what decodes this tokenizer's ids one by one."""
    return ByteDetokenizer(tokenizer) if tokenizer.byte_level else Detokenizer(tokenizer)


class Offsets:
    """Where each token begins in the text of all of them, as `TextStream` returns it."""

    def __init__(self, tokenizer: Tokenizer, newline: str = "", *, start: int = 0) -> None:
        """Begin at `start`; `newline` is the spelling of newlines that is replaced."""
        self._detokenizer = make_detokenizer(tokenizer)
        self._newline, self._end = newline, start
        self._rest = ""  # what may be the start of a newline's spelling

    def next(self, token: int) -> int:
        """Return where `token` begins, and move to its end."""
        start = self._end + len(self._shown(self._rest + self._detokenizer.held(token)))
        text = self._shown(self._rest + self._detokenizer.push(token))
        self._rest = text[len(text) - partial_suffix(text, (self._newline,)) :]
        self._end += len(text) - len(self._rest)
        return start

    def _shown(self, text: str) -> str:
        return text.replace(self._newline, "\n") if self._newline else text


class TextStream:
    """The visible text of an answer: newlines restored, ended before a stop string.

    The segments of `push` and `finish` join to the decoded text with the template's newline
    spelling replaced, truncated before the first stop string that completes, and without one final
    newline. Text that may still change is held back: part of a newline spelling, a newline that
    may be the final one, the start of a stop string. `pause` returns the rest of an answer that is
    truncated by its length or by the reader.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        newline: str = "",
        stop: Sequence[str] = (),
        *,
        strip_suffix: str = "\n",
        restorer: Restorer | None = None,
    ) -> None:
        """Strip one final `strip_suffix`; `restorer` postprocesses the text."""
        self._detokenizer = make_detokenizer(tokenizer)
        self._newline, self._stop, self._strip_suffix = newline, tuple(stop), strip_suffix
        self._restorer = restorer
        self._raw = ""  # decoded, newline spelling not yet replaced
        self._text = ""  # newlines restored, not yet returned
        self.stopped = False

    def push(self, token: int) -> str:
        """Return the text that is final after `token`; nothing more once `stopped`."""
        if self.stopped:
            return ""
        self._advance(self._detokenizer.push(token))
        if self._cut_at_stop():
            return self._emit(len(self._text.removesuffix(self._strip_suffix)))
        certain = self._text[: len(self._text) - partial_suffix(self._text, self._stop)]
        return self._emit(len(certain.removesuffix(self._strip_suffix)))

    def resume_after(self, ids: Sequence[int]) -> None:
        """Start after `ids`, whose text the reader has up to what `pause` returned."""
        stop, self._stop = self._stop, ()
        for token in ids:
            self.push(token)
        self._advance(self._detokenizer.pause())
        self._emit(len(self._text.removesuffix(self._strip_suffix)))
        self._stop = stop

    def continue_after(self, ids: Sequence[int]) -> None:
        """Start after `ids`, whose text the reader has completely."""
        self.resume_after(ids)
        self._raw = self._text = ""

    def pause(self) -> str:
        """Return the rest of a truncated text, without partial characters or newline spellings."""
        self._advance(self._detokenizer.pause())
        if self._restorer:
            self._text += self._restorer.cut()
        return self._emit(len(self._text.removesuffix(self._strip_suffix)))

    def finish(self) -> str:
        """Return the rest of the text when there are no more tokens."""
        if self.stopped:
            return ""
        self._advance(self._detokenizer.finish(), final=True)
        self._cut_at_stop()
        return self.pause()

    def _advance(self, text: str, *, final: bool = False) -> None:
        """Add decoded text with its newlines; unless `final`, hold back a partial spelling."""
        self._raw += text
        *lines, rest = self._raw.split(self._newline) if self._newline else [self._raw]
        pending = 0 if final else partial_suffix(rest, (self._newline,))
        self._raw = rest[len(rest) - pending :]
        text = "\n".join([*lines, rest[: len(rest) - pending]])
        if self._restorer:
            text = self._restorer.push(text) + (self._restorer.finish() if final else "")
        self._text += text

    def _cut_at_stop(self) -> bool:
        """End the text before the stop string that ends first (of two, the longer one)."""
        found = [(self._text.find(s) + len(s), -len(s)) for s in self._stop if s in self._text]
        if found:
            end, length = min(found)
            self._text = self._text[: end + length]
            self.stopped = True
        return self.stopped

    def _emit(self, count: int) -> str:
        emitted, self._text = self._text[:count], self._text[count:]
        return emitted


def partial_suffix(text: str, wanted: Sequence[str]) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of one of `wanted`."""
    longest = max((len(w) - 1 for w in wanted), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(len(w) > length and w.startswith(text[-length:]) for w in wanted):
            return length
    return 0
