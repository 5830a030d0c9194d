"""Text to ids and back, with the ids of transformers' slow T5Tokenizer (4.57, legacy)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from issun.runtime.added import AddedTokens, Part, lower
from issun.runtime.errors import BundleError, ParameterError
from issun.runtime.manifest import AddedToken, Tokens

_MOST_BYTES = 128 << 20  # of a SentencePiece file; those of 250,000 pieces have 5 MB
# The order in which T5Tokenizer gives ids to special tokens that the file does not have.
SPECIAL_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


class Tokenizer:
    """A SentencePiece model, and added tokens that are cut out before it sees the text.

    Each piece of text between added tokens gets SentencePiece's dummy prefix, as the slow
    T5Tokenizer does. Added tokens that are text count everywhere. By default a special token in
    the text is text: what a user types can never become one.
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

        `added` has the tokens that are text, and special ones with flags.
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
        self._spelled = {token.id: text for text, token in self._texts.by_spelling.items()}
        special_ids = frozenset(token.id for token in self._special.by_spelling.values())
        pieces = list(range(self.num_pieces))
        kinds = zip(pieces, self._sp.is_control(pieces), self._sp.is_unknown(pieces), strict=True)
        silent = {i for i, control, unknown in kinds if control or unknown}
        self._silent = (special_ids | silent) - self._spelled.keys()
        self._reserved = special_ids - {self._sp.unk_id()}
        # Pieces that may be spelled as an added token is that has another id.
        found = {text: self._sp.piece_to_id(text) for text in tokens}
        others = {i for text, i in found.items() if i != tokens[text].id}
        self._looked_up = others | {self._sp.unk_id()}
        self._bytes = frozenset(compress(pieces, self._sp.is_byte(pieces)))
        self.ids_beyond = frozenset(i for i in self._names if i >= self.num_pieces)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of `text`; with `special` the special tokens in it become their ids.

        No token is added in front or behind. Lone surrogates are read as U+FFFD.
        """
        tokens = self._tokens if special else self._texts
        return self._ids(tokens.fit(self._cut(text, tokens)), tokens)

    def split(self, text: str) -> list[str | int]:
        """Cut `text` at its special tokens: pieces of text, and ids of special tokens."""
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
        """Ids of what `split` gave: ids stay what they are, and text becomes no special token."""
        found: list[Part] = []
        for part in parts:
            if isinstance(part, int):
                name = self._names[part]
                found.append(Part(name, self._tokens.by_spelling[name]))
            else:
                found += self._cut(part, self._texts)
        return self._ids(self._texts.fit(found), self._texts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; control tokens and `<unk>` give nothing.

        Raises ParameterError for an id that is no token.
        """
        texts, pieces = [], list[int]()
        for token in ids:
            if token in self._spelled:  # what follows begins anew, as it was encoded
                texts += [self._sp.decode(pieces), self._spelled[token]]
                pieces = []
            elif self._is_text(token):
                pieces.append(token)
        return "".join([*texts, self._sp.decode(pieces)])

    def normalize(self, text: str) -> str:
        """What the tokenizer reads in `text`: its normal form, without spaces at the ends."""
        text = _without_surrogates(text)
        normal: str = self._sp.normalize(lower(text) if self.do_lower_case else text)
        return normal.replace("▁", " ").strip(" ")

    @property
    def begins_with_space(self) -> bool:
        """True where a text is read with a space before it, SentencePiece's dummy prefix."""
        return bool(self._sp.normalize("a").startswith("▁"))

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
            beyond = "".join(f", {i}" for i in sorted(self.ids_beyond))
            raise ParameterError(
                "The id {id} is no token: the tokenizer has the ids 0 to {last}.",
                id=token,
                last=f"{self.num_pieces - 1}{beyond}",
            )
        return True

    def _cut(self, text: str, tokens: AddedTokens) -> list[Part]:
        text = _without_surrogates(text)
        # The reference lowers first: "<S>" becomes "<s>", and that is special.
        return tokens.find(tokens.lower(text) if self.do_lower_case else text)

    def _ids(self, parts: Sequence[Part], tokens: AddedTokens) -> list[int]:
        ids: list[int] = []
        for part in parts:
            ids += [part.token.id] if part.token else self._encode_text(part.text, tokens)
        return ids

    def _encode_text(self, text: str, tokens: AddedTokens) -> list[int]:
        ids: list[int] = self._sp.encode(text)
        if tokens is self._texts and not self._reserved.isdisjoint(ids):
            return self._encode_apart(text)
        known = tokens.by_spelling
        if known and not self._looked_up.isdisjoint(ids):
            # The reference looks every piece up among the added tokens, by its spelling.
            pieces = self._sp.encode(text, out_type=str)
            ids = [known[p].id if p in known else i for p, i in zip(pieces, ids, strict=True)]
        return ids

    def _encode_apart(self, text: str) -> list[int]:
        """Ids where the file knows special tokens as pieces of text: what spells one is cut.

        What only normalization makes one is read as unknown.
        """
        cuts = [begin + 1 for begin in self._special.places(text)]
        parts = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        unknown: int = self._sp.unk_id()
        return [
            unknown if i in self._reserved else i for part in parts for i in self._sp.encode(part)
        ]


def _without_surrogates(text: str) -> str:
    """Pairs of surrogates join; lone ones, which SentencePiece refuses, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_tokenizer(folder: Path, tokens: Tokens) -> Tokenizer:
    """The tokenizer of the bundle in `folder`; raises BundleError when its file is none."""
    return Tokenizer(
        folder / tokens.file,
        tokens.special,
        added=tokens.added,
        do_lower_case=tokens.do_lower_case,
    )


def load_sentencepiece(path: str | Path) -> Any:
    """Open a SentencePiece model file; raises BundleError when it is none, or damaged."""
    if Path(path).stat().st_size > _MOST_BYTES:
        raise BundleError("{path} is larger than a SentencePiece model can be.", path=path)
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415

    try:
        model = SentencePieceProcessor(model_file=str(path))
        model.id_to_piece(list(range(model.get_piece_size())))  # all are to be text
    except UnicodeDecodeError as error:
        raise BundleError("{path} is damaged: a piece is not UTF-8.", path=path) from error
    except (OSError, RuntimeError) as error:
        raise BundleError("{path} is not a SentencePiece model.", path=path) from error
    return model
