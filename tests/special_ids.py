"""Ids of special tokens for tokenizers that tests make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from issun.runtime.text.spiece_tokenizer import load_sentencepiece


def assign_special_ids(path: str | Path, tokens: Sequence[str]) -> dict[str, int]:
    """Return the ids that T5Tokenizer gives `tokens`: the file's own, or new ones after them."""
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
