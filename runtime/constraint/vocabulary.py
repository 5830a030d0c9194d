"""What a vocabulary can spell, and the nearest spelling of other texts."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any, AnyStr

import numpy as np
from numpy.typing import NDArray

from issun.runtime.errors import ParameterError
from issun.runtime.text.tokenizer import Tokenizer

# In a pattern: escaped characters, and escapes that stand for sets of characters.
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_SET_ESCAPES = frozenset("xuUpP0123456789")
_SYNTAX = "{}^"  # of pattern syntax, which a vocabulary may lack
_RANGE = re.compile("(.)-(.)", re.DOTALL)
SHORT_ESCAPES = "\n\r\t\b\f"  # characters that JSON escapes with a letter
_PAIR = 2  # characters of a newline's spelling that two pieces can share
_LONGEST = 32  # characters of pieces to consider in a literal


class Vocabulary:
    """A tokenizer's pieces, as grammars see them.

    JSON grammars see the text of the pieces. Other grammars see a newline instead of its spelling
    in the template (`newline`, such as backslash + n), even if that is split over two pieces: each
    such pair gets a token of its own after the `rows` of the model. A longer spelling could be
    split over more pieces; it stays text, and a newline is the character itself.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, rows: int, ends: Collection[int], newline: str = ""
    ) -> None:
        self._tokenizer, self.rows = tokenizer, rows
        self.newline = newline if len(newline) <= _PAIR else ""
        self.ends = sorted(ends)
        tokens = {*range(tokenizer.num_pieces)}
        if not tokenizer.spells_all:  # else added tokens, which may get spaces, are not needed
            tokens.update(tokenizer.added_ids)
        tokens -= {*ends, *tokenizer.special.values()}
        texts = {i for i in tokens if not tokenizer.is_textless(i)}
        self._silent = [i for i in range(rows) if i not in texts]
        self.pieces = [tokenizer.piece(i) if i in texts else b"" for i in range(rows)]

    @cached_property
    def for_json(self) -> Any:
        """llguidance's tokenizer for JSON, in which newlines are escaped anyway."""
        return self._tokens(self.pieces)

    @cached_property
    def for_text(self) -> Any:
        """llguidance's tokenizer for other texts."""
        return self._tokens(self._texts_and_pairs())

    def table(self, *, is_json: bool) -> tuple[list[bytes], list[int], list[int]]:
        """Return the bytes of each token, the end tokens, and the tokens without text."""
        return self.pieces if is_json else self._texts_and_pairs(), self.ends, self._silent

    @cached_property
    def pairs(self) -> dict[int, dict[int, int]]:
        """Two pieces that spell a newline together -> the token for both."""
        spelling = self.newline.encode()
        found = {
            (first, second): None
            for cut in range(1, len(spelling))
            for first in (
                i for i, piece in enumerate(self.pieces) if piece.endswith(spelling[:cut])
            )
            for second in (
                j for j, piece in enumerate(self.pieces) if piece.startswith(spelling[cut:])
            )
        }
        pairs: dict[int, dict[int, int]] = {}
        for both, (first, second) in enumerate(found, self.rows):
            pairs.setdefault(first, {})[second] = both
        return pairs

    @property
    def begins_with_space(self) -> bool:
        """Whether the tokenizer adds a space before a text, which decoding strips."""
        return self._tokenizer.begins_with_space

    @cached_property
    def alphabet(self) -> frozenset[str] | None:
        """The characters that have their own token; None if bytes spell every character."""
        if self._tokenizer.spells_all:
            return None
        return frozenset(text for text in self._texts if len(text) == 1)

    def unspellable(self, text: str) -> str | None:
        """Return the first character of `text` that cannot be spelled, or None.

        A character that occurs only within longer pieces counts too, unless every way to start the
        text can also finish it.
        """
        if self.alphabet is None or self.alphabet.issuperset(text) or self._can_always_finish(text):
            return None
        return next(character for character in text if character not in self.alphabet)

    def _can_always_finish(self, text: str) -> bool:
        """Return whether pieces spell `text`, whichever of them an answer starts it with."""
        length = len(text)
        steps = [
            [
                end
                for end in range(at + 1, min(at + _LONGEST, length) + 1)
                if text[at:end] in self._texts
            ]
            for at in range(length)
        ]
        can_finish = {length}  # positions from which the end can be reached
        for at in reversed(range(length)):
            if not can_finish.isdisjoint(steps[at]):
                can_finish.add(at)
        if 0 not in can_finish:
            return False
        # A piece that ends with the start of the text may begin before it.
        reached = {0} | {
            at
            for at in range(1, min(_LONGEST, length))
            if any(len(piece) > at and piece.endswith(text[:at]) for piece in self._texts)
        }
        for at in range(length):
            if at in reached:
                reached.update(steps[at])
        return reached <= can_finish

    def nearest(self, text: str) -> str:
        """Return `text`, or its normalized form if only that can be spelled."""
        if self.unspellable(text) is None:
            return text
        nearest = self.normalized(text)
        return text if self.unspellable(nearest) or not nearest else nearest

    def normalized(self, text: str) -> str:
        """Return the tokenizer's normalized form of `text`, by line if it has newline tokens."""
        lines = text.split("\n") if "\n" in (self.alphabet or "") else [text]
        return "\n".join(map(self._tokenizer.normalize, lines))

    def spelled(self, text: str, path: str) -> str:
        """Return `nearest(text)`; ParameterError, naming `path`, if that cannot be spelled."""
        nearest = self.nearest(text)
        missing = self.unspellable(nearest)
        if missing:
            raise unspellable_error(text, missing, path)
        return nearest

    def restriction(self, pattern: str, *, in_json: bool = False) -> str | None:
        """Return a pattern that restricts texts to what can be spelled, if `pattern` needs that.

        Returns None if each character and class of the pattern includes something that can be
        spelled, so that an answer can never get stuck.
        """
        if self.alphabet is None:
            return None
        spellable = set(self.alphabet)
        if in_json:
            spellable = {c for c in spellable if self.unspellable(_in_json(c)) is None}
            spellable |= {c for c in SHORT_ESCAPES if self.unspellable(_in_json(c)) is None}
        escaped = set(_ESCAPED.findall(pattern))
        if escaped & _SET_ESCAPES:
            return f"[{_ranges(spellable)}]*"
        out = {*pattern, *(_ESCAPES[c] for c in escaped & _ESCAPES.keys())} - spellable
        for first, last in _RANGE.findall(pattern):
            if out & {first, last}:
                out |= {chr(code) for code in range(ord(first), ord(last) + 1)} - spellable
        return f"[^{_ranges(out)}]*" if out else None

    def no_match_error(self, pattern: str, path: str) -> ParameterError:
        """Return the error for a pattern that has no match, or none that can be spelled."""
        missing = [c for c in pattern if self.unspellable(c)]
        if not missing:
            return ParameterError(
                "{path}: nothing matches {pattern!r}.", path=path, pattern=pattern
            )
        return ParameterError(
            "{path}: the model's vocabulary cannot spell what {pattern!r} matches: it has no "
            "{character!r}.",
            path=path,
            pattern=pattern,
            character=next((c for c in missing if c not in _SYNTAX), missing[0]),
        )

    def min_tokens(self, text: str) -> int:
        """Return the fewest tokens that spell `text`; unspellable characters count as one."""
        if self.alphabet is None:
            return _fewest(text.encode(), self._spellings)
        return _fewest(text, self._texts)

    def most_tokens(self, text: str) -> int:
        """Return the most tokens that spell `text` if every character takes as few as it can."""
        if self.alphabet is None:
            return sum(1 if c in self._texts else len(c.encode()) for c in text)
        return len(text)

    @cached_property
    def costs(self) -> NDArray[np.int64]:
        """By token, the tokens beyond one a character that it and the rest of its last one take.

        Negative for a piece of several characters. Only the first part of a character counts: its
        cost covers the other parts. A backslash counts as no character, since it escapes one.
        """
        return np.array([_cost(self._as_text(i)) for i in range(self.rows)])

    @cached_property
    def _spellings(self) -> frozenset[bytes]:
        """The pieces, with newlines restored, among them parts of characters."""
        return frozenset(self._as_text(i) for i in range(self.rows))

    @cached_property
    def _texts(self) -> frozenset[str]:
        """The pieces as text, with newlines restored."""
        own = (self._as_text(i) for i in range(self.rows) if not self._tokenizer.is_byte(i))
        texts = {piece.decode() for piece in own if piece and _is_text(piece)}
        return frozenset(texts | {"\n"} if self.pairs else texts)

    def _as_text(self, *tokens: int) -> bytes:
        piece = b"".join(self.pieces[i] for i in tokens)
        return piece.replace(self.newline.encode(), b"\n") if self.newline else piece

    def _texts_and_pairs(self) -> list[bytes]:
        single = [self._as_text(i) for i in range(self.rows)]
        pairs = ((t, i, j) for i, seconds in self.pairs.items() for j, t in seconds.items())
        return single + [self._as_text(i, j) for _, i, j in sorted(pairs)]

    def _tokens(self, pieces: list[bytes]) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

        wrapper = TokenizerWrapper(_Tokens(self._tokenizer, pieces, self.ends[0], self._silent))
        return LLTokenizer(wrapper, n_vocab=len(pieces), eos_token=self.ends)


def _fewest(text: AnyStr, pieces: frozenset[AnyStr]) -> int:
    """Return the fewest `pieces` that make `text`; elements that none makes count as one."""
    fewest = [0]
    for end in range(1, len(text) + 1):
        best = fewest[end - 1] + 1
        for begin in range(max(0, end - _LONGEST), end - 1):
            if fewest[begin] + 1 < best and text[begin:end] in pieces:
                best = fewest[begin] + 1
        fewest.append(best)
    return fewest[-1]


def _cost(piece: bytes) -> int:
    """Return the cost of a token; see `Vocabulary.costs`."""
    begins = [at for at, byte in enumerate(piece) if byte & 0xC0 != 0x80]  # others continue
    if not begins:
        return 0
    last = piece[begins[-1]]
    missing = (last >= 0xC0) + (last >= 0xE0) + (last >= 0xF0) + 1 - len(piece) + begins[-1]
    return 1 - len(begins) + piece.count(b"\\") + max(0, missing)


def _is_text(piece: bytes) -> bool:
    """Whether a piece is whole characters; those of a byte-level tokenizer may not be."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def unspellable_error(text: str, character: str, path: str) -> ParameterError:
    """Return the error for a text at `path` whose `character` no token spells."""
    return ParameterError(
        "{path}: the model's vocabulary cannot spell {text!r}: it has no {character!r}.",
        path=path,
        text=text if len(text) <= 80 else text[:79] + "…",
        character=character,
    )


def _in_json(text: str) -> str:
    """Return a text as in a JSON string, without the quotes."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _ranges(characters: Iterable[str]) -> str:
    """Return the ranges of a character class for `characters`."""
    codes = sorted(map(ord, characters))
    first = [c for c, before in zip(codes, [-2, *codes], strict=False) if c != before + 1]
    last = [c for c, after in zip(codes, [*codes[1:], -2], strict=True) if c + 1 != after]
    return "".join(f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in zip(first, last, strict=True))


class _Tokens:
    """A vocabulary in llguidance's format: the bytes of each id."""

    bos_token_id = None

    def __init__(
        self, tokenizer: Tokenizer, tokens: list[bytes], eos: int, special: list[int]
    ) -> None:
        self._tokenizer, self.tokens = tokenizer, tokens
        self.eos_token_id, self.special_token_ids = eos, special

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace"))
