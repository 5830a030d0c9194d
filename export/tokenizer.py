"""The tokenizer of a checkpoint: its kind, its file in the bundle, and its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from issun.export.added import read_table
from issun.export.errors import CheckpointError
from issun.export.tokenizer_files import Choice, choose_tokenizer
from issun.export.tokenizer_json import read_json_tokenizer
from issun.runtime.manifest import Tokens
from issun.runtime.text.spiece_tokenizer import load_sentencepiece
from issun.runtime.text.tokenizer import Tokenizer, open_tokenizer


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """A checkpoint's tokenizer file, and what the bundle gets from it.

    `content` is the content of the bundle's file, `tokens` the manifest's entry, and `roles` has
    the token of each role, such as `eos`.
    """

    path: Path
    choice: Choice
    content: bytes
    tokens: Tokens
    roles: dict[str, str]

    def open(self) -> Tokenizer:
        """The tokenizer as the bundle will have it."""
        return open_tokenizer(self.content, self.tokens)

    @property
    def spellings(self) -> set[str]:
        """All control tokens and added tokens."""
        return {*self.tokens.special, *self.tokens.added}


def read_tokenizer(folder: Path, vocab_size: int) -> TokenizerSource:
    """Read the tokenizer of the checkpoint in `folder`.

    Raises CheckpointError and BundleError if there is none or it is invalid, and if an id is
    outside the vocabulary.
    """
    choice = choose_tokenizer(folder)
    path = folder / choice.file
    if choice.kind == "json":
        source = TokenizerSource(path, choice, *read_json_tokenizer(path, choice.name, vocab_size))
    else:
        source = _read_sentencepiece(path, choice, vocab_size)
    tokens = source.tokens
    ids = tokens.special | {token: added.id for token, added in tokens.added.items()}
    beyond = {token: i for token, i in ids.items() if i >= vocab_size}
    if tokens.pieces > vocab_size or beyond:
        raise CheckpointError(
            "{path} does not match config.json: it has {pieces} pieces{beyond}; vocab_size is "
            "{rows}.",
            path=path,
            pieces=tokens.pieces,
            beyond="".join(f", {token} has the id {i}" for token, i in beyond.items()),
            rows=vocab_size,
        )
    return source


def _read_sentencepiece(path: Path, choice: Choice, rows: int) -> TokenizerSource:
    kind = choice.kind
    file = load_sentencepiece(path)
    pieces: int = file.get_piece_size()
    table = read_table(path.parent, [file.id_to_piece(i) for i in range(pieces)], rows, kind)
    settings = table.settings
    legacy = settings.get("legacy") in (None, True)
    ids = {role: table.special[token] for role, token in table.roles.items()}
    begins = kind == "llama" and settings.get("add_bos_token", True) and "bos" in ids
    content = path.read_bytes()
    tokens = Tokens(
        kind=kind,
        legacy=legacy,
        prefix_space=bool(settings.get("add_prefix_space", True)),
        file="spiece.model",
        pieces=pieces,
        do_lower_case=kind == "t5" and bool(settings.get("do_lower_case", False)),
        special=table.special,
        bos=ids.get("bos"),
        eos=ids.get("eos"),
        unk=ids.get("unk"),
        pad=ids.get("pad"),
        sep=ids.get("sep"),
        added=table.added,
        begin=(ids["bos"],) if begins else (),
    )
    if not legacy:
        content = _without_dummy_prefix(content)
    return TokenizerSource(path, choice, content, tokens, table.roles)


def _without_dummy_prefix(content: bytes) -> bytes:
    """The SentencePiece model as transformers' slow tokenizers change it unless `legacy`."""
    from sentencepiece import sentencepiece_model_pb2 as proto  # noqa: PLC0415

    model: Any = proto.ModelProto.FromString(content)  # type: ignore[attr-defined]
    model.normalizer_spec.add_dummy_prefix = False
    changed: bytes = model.SerializeToString()
    return changed
