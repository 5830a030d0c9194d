"""Files in which a checkpoint keeps its tokenizer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from issun.export.errors import CheckpointError

TOKENIZER_FILES = ("spiece.model", "sentencepiece.model", "tokenizer.model")
TOKENIZER_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",  # its table of added tokens
)
# Tokenizers of other kinds; tokenizer.json may have been made from a SentencePiece file.
_OTHERS = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")


def sentencepiece_file(folder: str | Path, names: Collection[str]) -> str:
    """The SentencePiece file among the `names` in `folder`.

    Raises CheckpointError that says what to put there, or where else to take it from.
    """
    expected = " or ".join(TOKENIZER_FILES)
    if found := next((name for name in TOKENIZER_FILES if name in names), None):
        return found
    if others := [name for name in _OTHERS if name in names]:
        raise CheckpointError(
            "{folder} has {others} and no SentencePiece tokenizer: expected {names}. Put the file "
            "that the tokenizer was made from there, or name a folder or hub id that has it with "
            "--tokenizer.",
            folder=folder,
            others=" and ".join(others),
            names=expected,
        )
    raise CheckpointError(
        "{folder} has no SentencePiece tokenizer: expected {names}. Put the file of its base model "
        "there, or name a folder or hub id that has it with --tokenizer.",
        folder=folder,
        names=expected,
    )
