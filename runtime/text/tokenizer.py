"""The interface of all tokenizers, and how that of a bundle is opened."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from issun.runtime.manifest import Tokens


class Tokenizer(Protocol):
    """Text to ids and back.

    Control tokens are those of a format: `<s>`, `<|im_end|>`, `<think>`. Text that a user writes
    never becomes one. Those that are special in transformers have no text.
    """

    @property
    def special(self) -> Mapping[str, int]:
        """The control tokens and their ids."""

    @property
    def num_pieces(self) -> int:
        """The size of the vocabulary without the tokens that were added behind it."""

    @property
    def added_ids(self) -> Collection[int]:
        """The ids of added tokens that are not below `num_pieces`."""

    @property
    def byte_level(self) -> bool:
        """Whether tokens are bytes and may begin and end within a character."""

    @property
    def whole_runs(self) -> bool:
        """Whether invalid UTF-8 in a run of byte pieces makes the whole run U+FFFD."""

    @property
    def spells_all(self) -> bool:
        """Whether tokens spell every character, by its bytes if need be."""

    @property
    def begins_with_space(self) -> bool:
        """Whether a space that decoding strips is added before a text."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of `text`; with `special`, control tokens in it become their ids.

        No token is added at either end. Lone surrogates are read as U+FFFD.
        """

    def split(self, text: str) -> list[str | int]:
        """Split `text` at its control tokens into pieces of text and ids of control tokens."""

    def encode_parts(self, parts: Iterable[str | int]) -> list[int]:
        """Return the ids of the parts from `split`; text in them never becomes a control token."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; ParameterError for an id that is not a token."""

    def normalize(self, text: str) -> str:
        """Return the normalized form of `text` that the tokenizer sees, without outer spaces."""

    def piece(self, token: int) -> bytes:
        """Return the UTF-8 spelling of `token`; empty for a logit row that has no token."""

    def is_byte(self, token: int) -> bool:
        """Return whether `token` is one byte of a character (models with byte fallback)."""

    def is_textless(self, token: int) -> bool:
        """Return whether `token` has no text."""


def load_tokenizer(folder: Path, tokens: Tokens) -> Tokenizer:
    """Load the tokenizer of the bundle in `folder`; raises BundleError for an invalid file."""
    return open_tokenizer(folder / tokens.file, tokens)


def open_tokenizer(file: Path | bytes, tokens: Tokens) -> Tokenizer:
    """Open the tokenizer that `tokens` describes, from a path or from the file's content.

    Raises BundleError for an invalid file.
    """
    if tokens.kind == "json":
        from issun.runtime.text.json_tokenizer import JsonTokenizer  # noqa: PLC0415

        return JsonTokenizer(file, tokens.special, tokens.added, unk=tokens.unk)
    from issun.runtime.text.spiece_tokenizer import (  # noqa: PLC0415
        LlamaTokenizer,
        SentencePieceTokenizer,
    )

    make = LlamaTokenizer if tokens.kind == "llama" else SentencePieceTokenizer
    names = (name for name, i in tokens.special.items() if i == tokens.unk)
    return make(
        file,
        tokens.special,
        added=tokens.added,
        do_lower_case=tokens.do_lower_case,
        legacy=tokens.legacy,
        prefix_space=tokens.prefix_space,
        unk=next(names, "<unk>"),
    )
