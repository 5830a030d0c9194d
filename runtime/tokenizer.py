"""Text to ids and back, with the ids of transformers' slow T5Tokenizer (4.57, legacy)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from issun.runtime.errors import BundleError, ParameterError

# The order in which T5Tokenizer gives ids to special tokens that the file does not have.
SPECIAL_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class Tokenizer:
    """A SentencePiece model with special tokens that are split off before it sees the text.

    Each piece of text between special tokens gets SentencePiece's dummy prefix, as the slow
    T5Tokenizer does. By default a special token in the text is text: what a user types can never
    become one.
    """

    def __init__(
        self, path: str | Path, special: Mapping[str, int], *, do_lower_case: bool = False
    ) -> None:
        """Open the SentencePiece file at `path`; `special` maps each special token to its id."""
        self._sp = load_sentencepiece(path)
        self.special = dict(special)
        self._names = {token: name for name, token in special.items()}
        self.do_lower_case = do_lower_case
        self.num_pieces: int = self._sp.get_piece_size()
        longest_first = sorted(self.special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._silent = frozenset(
            i for i in range(self.num_pieces) if self._sp.is_control(i) or self._sp.is_unknown(i)
        ) | frozenset(self.special.values())
        self._reserved = frozenset(self.special.values()) - {self._sp.unk_id()}
        self._bytes = frozenset(i for i in range(self.num_pieces) if self._sp.is_byte(i))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of `text`; with `special` the special tokens in it become their ids.

        No token is added in front or behind. Lone surrogates are read as U+FFFD.
        """
        if not special:
            return self._encode_text(text)
        if self.do_lower_case:
            # The reference lowers first: "<S>" becomes "<s>", and that is special.
            text = "".join(p if p in self.special else _lower(p) for p in self._split.split(text))
        ids: list[int] = []
        for part in self.split(text):
            ids += [part] if isinstance(part, int) else self._encode_text(part)
        return ids

    def split(self, text: str) -> list[str | int]:
        """Cut `text` at its special tokens: pieces of text, and ids of special tokens."""
        if not self.special:
            return [text]
        parts = self._split.split(text)
        return [self.special.get(part, part) for part in parts if part]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; control tokens and `<unk>` give nothing.

        Raises ParameterError for an id that is no token.
        """
        text: str = self._sp.decode([i for i in ids if self._is_text(i)])
        return text

    def normalize(self, text: str) -> str:
        """What the tokenizer reads in `text`: its normal form, without spaces at the ends."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        normal: str = self._sp.normalize(_lower(text) if self.do_lower_case else text)
        return normal.replace("▁", " ").strip(" ")

    def piece(self, token: int) -> bytes:
        """What `token` spells as UTF-8: a space for "▁", one byte of a byte piece.

        A row of the model that is no token spells nothing.
        """
        if token in self._names:
            return self._names[token].encode()
        if not 0 <= token < self.num_pieces:
            return b""
        spelling: str = self._sp.id_to_piece(token)
        if token in self._bytes:
            return bytes([int(spelling[1:-1], 16)])
        return spelling.replace("▁", " ").encode()

    def is_byte(self, token: int) -> bool:
        """True for a piece that is one byte of a character (models with byte fallback)."""
        return token in self._bytes

    def is_silent(self, token: int) -> bool:
        """True for control tokens, special tokens and `<unk>`, which give no text."""
        return token in self._silent

    def _is_text(self, token: int) -> bool:
        if self.is_silent(token):
            return False
        if not 0 <= token < self.num_pieces:
            raise ParameterError(
                "The id {id} is no token: the tokenizer has the ids 0 to {last}.",
                id=token,
                last=self.num_pieces - 1,
            )
        return True

    def _encode_text(self, text: str) -> list[int]:
        # Pairs of surrogates join; lone ones, which SentencePiece refuses, become U+FFFD.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if self.do_lower_case:
            text = _lower(text)
        ids: list[int] = self._sp.encode(text)
        return ids if self._reserved.isdisjoint(ids) else self._encode_apart(text)

    def _encode_apart(self, text: str) -> list[int]:
        """Ids where the file knows special tokens as pieces of text: what spells one is cut.

        What only normalization makes one is read as unknown.
        """
        cuts = [match.start() + 1 for match in self._split.finditer(text)]
        parts = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        unknown: int = self._sp.unk_id()
        return [
            unknown if i in self._reserved else i for part in parts for i in self._sp.encode(part)
        ]


def _lower(text: str) -> str:
    # Character by character as the reference does: "Σ" is never the final sigma.
    return "".join(map(str.lower, text))


def load_sentencepiece(path: str | Path) -> Any:
    """Open a SentencePiece model file; raises BundleError when it is none."""
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

    try:
        return SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise BundleError("{path} is not a SentencePiece model.", path=path) from error


def assign_special_ids(path: str | Path, tokens: Sequence[str]) -> dict[str, int]:
    """Ids of `tokens` as T5Tokenizer gives them: the file's own, else new ones behind these."""
    sp = load_sentencepiece(path)
    ids: dict[str, int] = {}
    next_id: int = sp.get_piece_size()
    for token in tokens:
        if token in ids:
            continue
        found: int = sp.piece_to_id(token)
        if sp.id_to_piece(found) == token:
            ids[token] = found
        else:
            ids[token] = next_id
            next_id += 1
    return ids
