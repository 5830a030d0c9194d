"""Text to ids and back by a `tokenizer.json`, with the ids of transformers' fast tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from issun.runtime.errors import BundleError, IssunError, ParameterError
from issun.runtime.manifest import AddedToken
from issun.runtime.text.added import AddedTokens, without_surrogates

_MAX_BYTES = 128 << 20  # of a file; Gemma's, with 262,144 tokens, has 33 MB
# Precedes the spelling of a control token in a bundle's file. Unicode reserves these code points
# for a program's own use, so that no text has them.
HIDDEN = "\ufdd0\ufdd1"


class JsonTokenizer:
    """A `tokenizer.json` in which the control tokens are spelled so that no text contains them.

    User text therefore never becomes one, even if the vocabulary itself spells it. A prompt with
    control tokens is encoded as a whole, with their hidden spellings, so that spaces next to them
    are treated as in transformers.
    """

    whole_runs = True  # of byte pieces: invalid UTF-8 makes all of them U+FFFD

    def __init__(
        self,
        file: Path | bytes,
        special: Mapping[str, int],
        added: Mapping[str, AddedToken] | None = None,
        *,
        unk: int | None = None,
    ) -> None:
        """Open a file in which the control tokens, `special`, are hidden.

        `added` has those that have a text or flags. Raises BundleError for an invalid file, and if
        the package tokenizers is not installed.
        """
        self._path = file if isinstance(file, Path) else "tokenizer.json"
        self.special = dict(special)
        control = {
            text: (added or {}).get(text, AddedToken(id=i, special=True))
            for text, i in special.items()
        }
        self._control = AddedTokens(control)
        self._names = {token.id: text for text, token in control.items()}
        self._silent = frozenset(token.id for token in control.values() if token.special)
        self._rust = open_rust(file, self._path)
        self.num_pieces: int = self._rust.get_vocab_size(with_added_tokens=False)
        self.added_ids = frozenset(
            i for i in self._rust.get_added_tokens_decoder() if i >= self.num_pieces
        )
        self._reserved = frozenset(special.values()) - {unk}
        decoder = self._rust.decoder
        decoders = {*_types(json.loads(decoder.__getstate__()))} if decoder else set[str]()
        self.byte_level = "ByteLevel" in decoders
        self._alphabet = byte_alphabet() if self.byte_level else {}
        pieces = {self._rust.token_to_id(f"<0x{byte:02X}>"): byte for byte in range(256)}
        self._bytes = pieces if "ByteFallback" in decoders and None not in pieces else {}
        self.spells_all = self.byte_level or bool(self._bytes)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special`, control tokens in it become their ids.

        No token is added at either end. Lone surrogates are read as U+FFFD.
        """
        return self.encode_parts(self.split(text) if special else [text])

    def split(self, text: str) -> list[str | int]:
        """Split `text` at its control tokens into pieces of text and ids of control tokens."""
        parts = self._control.find(text)
        return [part.token.id if part.token else part.text for part in parts]

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Return the ids of the parts from `split`; text in them never becomes a control token."""
        parts = [p if isinstance(p, int) else without_surrogates(p) for p in parts]
        ids, missed = self._ids(parts)
        if missed:  # by their flags, tokens may not count at every place, and then are text
            parts = [
                self._names[part] if isinstance(part, int) and at in missed else part
                for at, part in enumerate(parts)
            ]
            ids, _ = self._ids(parts)
        if [i for i in ids if i in self._reserved] == [p for p in parts if p in self._reserved]:
            return ids
        # A text spells a hidden token.
        parts = [p if isinstance(p, int) else p.replace(HIDDEN[0], "\ufffd") for p in parts]
        return self._ids(parts)[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; special tokens have none.

        Raises ParameterError for an id that is not a token.
        """
        known = [token for token in ids if self._is_text(token)]
        if self.byte_level:
            return b"".join(map(self.piece, known)).decode("utf-8", "replace")
        with one_line_errors(self._path):
            text: str = self._rust.decode(known, skip_special_tokens=False)
        for name in {self._names[token] for token in known if token in self._names}:
            text = text.replace(HIDDEN + name, name)
        return text

    def normalize(self, text: str) -> str:
        """Return the normalized form of `text` that the tokenizer sees, without outer spaces."""
        normalizer, text = self._rust.normalizer, without_surrogates(text)
        with one_line_errors(self._path):
            normal: str = normalizer.normalize_str(text) if normalizer else text
        return normal.replace("▁", " ").strip(" ")

    @cached_property
    def begins_with_space(self) -> bool:
        """Whether a space that decoding strips is added before a text."""
        ids = self.encode("a")
        spelled = b"".join(map(self.piece, ids[:1]))
        return spelled.startswith(b" ") and not self.decode(ids).startswith(" ")

    def piece(self, token: int) -> bytes:
        """Return the UTF-8 spelling of `token`: a single byte for a byte piece.

        Logit rows that have no token have an empty spelling.
        """
        if token in self._names:
            return self._names[token].encode()
        if token in self._bytes:
            return bytes([self._bytes[token]])
        known = 0 <= token < self.num_pieces or token in self.added_ids
        spelling: str = (self._rust.id_to_token(token) if known else None) or ""
        if not self.byte_level:
            return spelling.replace("▁", " ").encode()
        try:
            return bytes(self._alphabet[letter] for letter in spelling)
        except KeyError:  # an added token, which is spelled literally
            return spelling.encode()

    def is_byte(self, token: int) -> bool:
        """Return whether `token` is one byte of a character (models with byte fallback)."""
        return token in self._bytes

    def is_textless(self, token: int) -> bool:
        """Return whether `token` is a special token, which has no text."""
        return token in self._silent

    def _is_text(self, token: int) -> bool:
        if not 0 <= token < self.num_pieces and token not in self.added_ids:
            beyond = "".join(f", {i}" for i in sorted(self.added_ids))
            raise ParameterError(
                "The id {id} is not a token: the tokenizer has ids 0 to {last}.",
                id=token,
                last=f"{self.num_pieces - 1}{beyond}",
            )
        return token not in self._silent

    def _ids(self, parts: Sequence[str | int]) -> tuple[list[int], set[int]]:
        """Return the ids of all parts, and the places of control tokens that do not count there."""
        text, begins = "", dict[int, int]()
        for place, part in enumerate(parts):
            begins[len(text)] = place
            text += part if isinstance(part, str) else HIDDEN + self._names[part]
        with one_line_errors(self._path):
            found = self._rust.encode(text, add_special_tokens=False)
        ids: list[int] = found.ids
        spans = [
            range(*span) for i, span in zip(ids, found.offsets, strict=True) if i in self._names
        ]
        missed = {
            place
            for begin, place in begins.items()
            if isinstance(parts[place], int) and not any(begin in span for span in spans)
        }
        return ids, missed


def open_rust(file: Path | bytes, path: str | Path) -> Any:
    """Open a file or its content with the package tokenizers; `path` is for messages.

    Raises BundleError for an invalid or oversized file, and if the package is not installed.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise BundleError(
            '{path} needs the package {module}: pip install "issun[models]"',
            path=path,
            module=error.name,
        ) from error
    size = file.stat().st_size if isinstance(file, Path) else len(file)
    if size > _MAX_BYTES:
        raise BundleError("{path} is larger than a tokenizer.json can be.", path=path)
    content = file.read_bytes() if isinstance(file, Path) else file
    with one_line_errors(path):
        return Tokenizer.from_buffer(content)


@contextmanager
def one_line_errors(path: str | Path) -> Iterator[None]:
    """Raise BundleError for any error of the package, which has no error class of its own."""
    try:
        yield
    except IssunError:
        raise
    except BaseException as error:
        # A Rust panic is a BaseException, so that nobody mistakes it for an ordinary error.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            "{path} is not a valid tokenizer.json: {reason}", path=path, reason=reason
        ) from error


def _types(part: Mapping[str, Any]) -> Iterator[str]:
    """Return the types of a decoder and of those in its sequence."""
    yield part["type"]
    for inner in part.get("decoders", ()):
        yield from _types(inner)


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character stands for in byte-level BPE.

    Characters that cannot be seen are replaced by those from 256 on. Source: `bytes_to_unicode` of
    GPT-2's encoder.py.
    """
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    replaced = count(256)
    return {chr(byte if byte in visible else next(replaced)): byte for byte in range(256)}
