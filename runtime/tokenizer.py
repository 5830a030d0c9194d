"""Text to ids and back, with the ids of transformers' slow T5Tokenizer (4.57, legacy)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from issun.runtime.added import AddedTokens, Part, lower
from issun.runtime.errors import BundleError, ParameterError
from issun.runtime.manifest import AddedToken, Tokens

_MAX_BYTES = 128 << 20  # of a SentencePiece file; one with 250,000 pieces has 5 MB
# The order in which T5Tokenizer assigns ids to special tokens that the file does not contain.
SPECIAL_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class Tokenizer:
    """A SentencePiece model, plus added tokens that are split off before it sees the text.

    Each piece of text between added tokens gets SentencePiece's dummy prefix, as in the slow
    T5Tokenizer. Added tokens that are not special are always recognized. Special tokens in the
    text are plain text by default, so user input can never produce one.
    """

    def __init__(
        self,
        path: str | Path,
        special: Mapping[str, int],
        *,
        added: Mapping[str, AddedToken] | None = None,
        do_lower_case: bool = False,
    ) -> None:
        """Open the SentencePiece file at `path`; `special` maps each special token to its id.

        `added` has the added tokens that are not special, and the special ones that have flags.
        """
        self._sp = load_sentencepiece(path)
        self.special = dict(special)
        self.do_lower_case = do_lower_case
        self.num_pieces: int = self._sp.get_piece_size()
        plain = {token: AddedToken(id=i, special=True) for token, i in special.items()}
        tokens = plain | dict(added or {})
        self._tokens = AddedTokens(tokens)
        self._texts = AddedTokens({text: t for text, t in tokens.items() if not t.special})
        self._special = AddedTokens({text: t for text, t in tokens.items() if t.special})
        self._names = {token.id: text for text, token in tokens.items()}
        self._added_texts = {token.id: text for text, token in self._texts.by_spelling.items()}
        special_ids = frozenset(token.id for token in self._special.by_spelling.values())
        pieces = list(range(self.num_pieces))
        kinds = zip(pieces, self._sp.is_control(pieces), self._sp.is_unknown(pieces), strict=True)
        textless = {i for i, control, unknown in kinds if control or unknown}
        self._textless = (special_ids | textless) - self._added_texts.keys()
        self._reserved = special_ids - {self._sp.unk_id()}
        # Pieces whose spelling may equal that of an added token with another id.
        found = {text: self._sp.piece_to_id(text) for text in tokens}
        others = {i for text, i in found.items() if i != tokens[text].id}
        self._ambiguous = others | {self._sp.unk_id()}
        self._bytes = frozenset(compress(pieces, self._sp.is_byte(pieces)))
        self.added_ids = frozenset(i for i in self._names if i >= self.num_pieces)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special`, special tokens in it become their ids.

        No token is added at either end. Lone surrogates are read as U+FFFD.
        """
        tokens = self._tokens if special else self._texts
        return self._ids(tokens.apply_flags(self._split_added(text, tokens)), tokens)

    def split(self, text: str) -> list[str | int]:
        """Split `text` at its special tokens into pieces of text and ids of special tokens."""
        parts: list[str | int] = []
        for part in self._tokens.find(text):
            if part.token and part.token.special:
                parts.append(part.token.id)
            elif parts and isinstance(parts[-1], str):
                parts[-1] += part.text
            else:
                parts.append(part.text)
        return parts

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Return the ids of the parts from `split`; text in them never becomes a special token."""
        found: list[Part] = []
        for part in parts:
            if isinstance(part, int):
                name = self._names[part]
                found.append(Part(name, self._tokens.by_spelling[name]))
            else:
                found += self._split_added(part, self._texts)
        return self._ids(self._texts.apply_flags(found), self._texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; control tokens and `<unk>` have none.

        Raises ParameterError for an id that is not a token.
        """
        texts, pieces = [], list[int]()
        for token in ids:
            if token in self._added_texts:  # the text after it starts afresh, as it was encoded
                texts += [self._sp.decode(pieces), self._added_texts[token]]
                pieces = []
            elif self._is_text(token):
                pieces.append(token)
        return "".join([*texts, self._sp.decode(pieces)])

    def normalize(self, text: str) -> str:
        """Return the normalized form of `text` that the tokenizer sees, without outer spaces."""
        text = _without_surrogates(text)
        normal: str = self._sp.normalize(lower(text) if self.do_lower_case else text)
        return normal.replace("▁", " ").strip(" ")

    @property
    def begins_with_space(self) -> bool:
        """Whether a space, SentencePiece's dummy prefix, is added before a text."""
        return bool(self._sp.normalize("a").startswith("▁"))

    def piece(self, token: int) -> bytes:
        """Return the UTF-8 spelling of `token`: a space for "▁", a single byte for a byte piece.

        Logit rows that have no token have an empty spelling.
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
        """Return whether `token` is one byte of a character (models with byte fallback)."""
        return token in self._bytes

    def is_textless(self, token: int) -> bool:
        """Return whether `token` has no text: control tokens, special tokens and `<unk>`."""
        return token in self._textless

    def _is_text(self, token: int) -> bool:
        if self.is_textless(token):
            return False
        if not 0 <= token < self.num_pieces:
            beyond = "".join(f", {i}" for i in sorted(self.added_ids))
            raise ParameterError(
                "The id {id} is not a token: the tokenizer has ids 0 to {last}.",
                id=token,
                last=f"{self.num_pieces - 1}{beyond}",
            )
        return True

    def _split_added(self, text: str, tokens: AddedTokens) -> list[Part]:
        text = _without_surrogates(text)
        # The reference lower-cases first: "<S>" becomes "<s>", which is special.
        return tokens.find(tokens.lower(text) if self.do_lower_case else text)

    def _ids(self, parts: Sequence[Part], tokens: AddedTokens) -> list[int]:
        ids: list[int] = []
        for part in parts:
            ids += [part.token.id] if part.token else self._encode_text(part.text, tokens)
        return ids

    def _encode_text(self, text: str, tokens: AddedTokens) -> list[int]:
        ids: list[int] = self._sp.encode(text)
        if tokens is self._texts and not self._reserved.isdisjoint(ids):
            return self._encode_without_special(text)
        known = tokens.by_spelling
        if known and not self._ambiguous.isdisjoint(ids):
            # The reference looks up the spelling of every piece among the added tokens.
            pieces = self._sp.encode(text, out_type=str)
            ids = [known[p].id if p in known else i for p, i in zip(pieces, ids, strict=True)]
        return ids

    def _encode_without_special(self, text: str) -> list[int]:
        """Encode so that no piece is a special token, for files that have these as normal pieces.

        The text is cut within each of their spellings. One that only normalization produces becomes
        `<unk>`.
        """
        cuts = [begin + 1 for begin in self._special.positions(text)]
        parts = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        unknown: int = self._sp.unk_id()
        return [
            unknown if i in self._reserved else i for part in parts for i in self._sp.encode(part)
        ]


def _without_surrogates(text: str) -> str:
    """Join surrogate pairs; lone ones, which SentencePiece rejects, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_tokenizer(folder: Path, tokens: Tokens) -> Tokenizer:
    """Load the tokenizer of the bundle in `folder`; raises BundleError for an invalid file."""
    return Tokenizer(
        folder / tokens.file,
        tokens.special,
        added=tokens.added,
        do_lower_case=tokens.do_lower_case,
    )


def load_sentencepiece(path: str | Path) -> Any:
    """Open a SentencePiece model file; raises BundleError if it is invalid or damaged."""
    if Path(path).stat().st_size > _MAX_BYTES:
        raise BundleError("{path} is larger than a SentencePiece model can be.", path=path)
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

    try:
        model = SentencePieceProcessor(model_file=str(path))
        model.id_to_piece(list(range(model.get_piece_size())))  # raises unless all are UTF-8
    except UnicodeDecodeError as error:
        raise BundleError("{path} is damaged: a piece is not UTF-8.", path=path) from error
    except (OSError, RuntimeError) as error:
        raise BundleError("{path} is not a SentencePiece model.", path=path) from error
    return model
