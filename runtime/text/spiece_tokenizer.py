"""SentencePiece models, with the ids of T5Tokenizer and LlamaTokenizer of transformers 4.57."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from issun.runtime.errors import BundleError, ParameterError
from issun.runtime.manifest import AddedToken
from issun.runtime.text.added import AddedTokens, Part, lower, without_surrogates

_MAX_BYTES = 128 << 20  # of a SentencePiece file; one with 250,000 pieces has 5 MB


class SentencePieceTokenizer:
    """A SentencePiece model, plus added tokens that are split off before it sees the text.

    As in the slow T5Tokenizer, each piece of text between added tokens gets SentencePiece's dummy
    prefix; if not `legacy`, only the beginning of a text gets it. Added tokens that are not control
    tokens are always recognized. Control tokens in the text are plain text by default, so user
    input can never produce one.
    """

    byte_level = False  # tokens are whole characters, or one byte each
    whole_runs = False  # of byte pieces: a character is known when its last byte is

    def __init__(
        self,
        file: str | Path | bytes,
        special: Mapping[str, int],
        *,
        added: Mapping[str, AddedToken] | None = None,
        do_lower_case: bool = False,
        legacy: bool = True,
        prefix_space: bool = True,
        unk: str = "<unk>",
    ) -> None:
        """Open a SentencePiece file; `special` maps each control token to its id.

        `added` has the added tokens that are text, and the control tokens that have flags. Unless
        `legacy`, the file has no dummy prefix, and `prefix_space` decides about the space before a
        text; `unk` is the token without a piece.
        """
        self._sp = load_sentencepiece(file)
        self.special = dict(special)
        self.do_lower_case = do_lower_case
        self.num_pieces: int = self._sp.get_piece_size()
        self._legacy, self._prefix_space, self._unk = legacy, prefix_space, unk
        self._unk_length = len(self._sp.encode(unk))
        plain = {token: AddedToken(id=i, special=True) for token, i in special.items()}
        tokens = plain | dict(added or {})
        self._tokens = AddedTokens(tokens)
        self._texts = AddedTokens({text: t for text, t in tokens.items() if text not in special})
        self._special = AddedTokens({text: t for text, t in tokens.items() if text in special})
        self._names = {token.id: text for text, token in tokens.items()}
        self._added_texts = {t.id: text for text, t in tokens.items() if not t.special}
        self._silent = frozenset(token.id for token in tokens.values() if token.special)
        special_ids = frozenset(special.values())
        pieces = list(range(self.num_pieces))
        kinds = zip(pieces, self._sp.is_control(pieces), self._sp.is_unknown(pieces), strict=True)
        textless = {i for i, control, unknown in kinds if control or unknown}
        self._textless = (self._silent | textless) - self._added_texts.keys()
        self._reserved = special_ids - {self._sp.unk_id()}
        # Pieces whose spelling may equal that of an added token with another id.
        found = {text: self._sp.piece_to_id(text) for text in tokens}
        others = {i for text, i in found.items() if i != tokens[text].id}
        self._ambiguous = others | {self._sp.unk_id()}
        self._bytes = frozenset(compress(pieces, self._sp.is_byte(pieces)))
        self.added_ids = frozenset(i for i in self._names if i >= self.num_pieces)
        self.spells_all = len(self._bytes) == 256

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special`, control tokens in it become their ids.

        No token is added at either end. Lone surrogates are read as U+FFFD.
        """
        tokens = self._tokens if special else self._texts
        return self._ids(self._split_added(text, tokens), tokens)

    def split(self, text: str) -> list[str | int]:
        """Split `text` at its control tokens into pieces of text and ids of control tokens."""
        parts: list[str | int] = []
        for part in self._tokens.find(text):
            if part.token and part.text in self.special:
                parts.append(part.token.id)
            elif parts and isinstance(parts[-1], str):
                parts[-1] += part.text
            else:
                parts.append(part.text)
        return parts

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Return the ids of the parts from `split`; text in them never becomes a control token."""
        found: list[Part] = []
        for part in parts:
            if isinstance(part, int):
                name = self._names[part]
                found.append(Part(name, self._tokens.by_spelling[name]))
            else:
                found += self._split_added(part, self._texts)
        return self._ids(found, self._texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; special tokens and `<unk>` have none.

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
        text = without_surrogates(text)
        normal: str = self._sp.normalize(lower(text) if self.do_lower_case else text)
        return normal.replace("▁", " ").strip(" ")

    @property
    def begins_with_space(self) -> bool:
        """Whether a space that decoding strips, SentencePiece's dummy prefix, precedes a text."""
        if not self._legacy:
            return self._prefix_space
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
        """Return whether `token` has no text: special tokens and `<unk>`."""
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
        text = without_surrogates(text)
        if not self._legacy:
            text = text.replace("▁", " ")
        # The reference lower-cases first: "<S>" becomes "<s>", which is special.
        return tokens.find(tokens.lower(text) if self.do_lower_case else text)

    def _ids(self, parts: list[Part], tokens: AddedTokens) -> list[int]:
        prefixed = parts and not self._legacy and self._prefix_space
        if prefixed and parts[0].token:
            parts.insert(0, Part("▁"))
        elif prefixed:
            parts[0].text = "▁" + parts[0].text
        ids: list[int] = []
        for part in tokens.apply_flags(parts):
            ids += [part.token.id] if part.token else self._encode_text(part.text, tokens)
        if not self._legacy and self._silent.intersection(ids[1:2]) and self.piece(ids[0]) == b" ":
            del ids[0]  # the reference drops a space before a special token that begins the text
        return ids

    def _pieces(self, text: str, out_type: type = int) -> list[Any]:
        """Return SentencePiece's ids of `text`, or pieces with `str` as the type."""
        if self._legacy or not text.startswith(("▁", " ")):
            found: list[Any] = self._sp.encode(text, out_type=out_type)
            return found
        # SentencePiece would strip the leading space if nothing preceded it.
        found = self._sp.encode(self._unk + text, out_type=out_type)
        return found[self._unk_length :]

    def _encode_text(self, text: str, tokens: AddedTokens) -> list[int]:
        ids: list[int] = self._pieces(text)
        if tokens is self._texts and not self._reserved.isdisjoint(ids):
            return self._encode_without_special(text)
        known = tokens.by_spelling
        if known and not self._ambiguous.isdisjoint(ids):
            # The reference looks up the spelling of every piece among the added tokens.
            pieces = self._pieces(text, str)
            ids = [known[p].id if p in known else i for p, i in zip(pieces, ids, strict=True)]
        return ids

    def _encode_without_special(self, text: str) -> list[int]:
        """Encode so that no piece is a control token, for files that have these as normal pieces.

        The text is cut within each of their spellings. One that only normalization produces becomes
        `<unk>`.
        """
        cuts = [begin + 1 for begin in self._special.positions(text)]
        parts = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        unknown: int = self._sp.unk_id()
        return [unknown if i in self._reserved else i for part in parts for i in self._pieces(part)]


class LlamaTokenizer(SentencePieceTokenizer):
    """The slow LlamaTokenizer, which encodes as T5Tokenizer does and decodes differently.

    As in its `decode`, an added token that has a text stands between spaces, and a text after it
    loses its leading space.
    """

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; special tokens and `<unk>` have none.

        Raises ParameterError for an id that is not a token.
        """
        texts, pieces = [], list[int]()
        for token in ids:
            if token in self._added_texts:
                if text := self._text(pieces):
                    texts.append(text)
                texts.append(self._added_texts[token])
                pieces = []
            elif self._is_text(token):
                pieces.append(token)
        return " ".join([*texts, self._text(pieces)] if pieces else texts)

    def _text(self, ids: Sequence[int]) -> str:
        pieces = [self._sp.id_to_piece(i) for i in ids]
        if pieces and self._prefix_space:
            pieces[0] = pieces[0].removeprefix("▁")
        text: str = self._sp.decode(pieces) if pieces else ""
        return text


def load_sentencepiece(file: str | Path | bytes) -> Any:
    """Open a SentencePiece model; raises BundleError if it is invalid or damaged."""
    path = "The tokenizer" if isinstance(file, bytes) else file
    if not isinstance(file, bytes) and Path(file).stat().st_size > _MAX_BYTES:
        raise BundleError("{path} is larger than a SentencePiece model can be.", path=path)
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

    source = {"model_proto": file} if isinstance(file, bytes) else {"model_file": str(file)}
    try:
        model = SentencePieceProcessor(**source)
        model.id_to_piece(list(range(model.get_piece_size())))  # raises unless all are UTF-8
    except UnicodeDecodeError as error:
        raise BundleError("{path} is damaged: a piece is not UTF-8.", path=path) from error
    except (OSError, RuntimeError) as error:
        raise BundleError("{path} is not a SentencePiece model.", path=path) from error
    return model
