"""Checkpoint folders with small SentencePiece tokenizers of the families' kinds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.added import token

TURN, TOOL, PAD = "<|turn|>", "<tool>", "<pad>"


@dataclass(frozen=True, slots=True)
class Kind:
    """The options of SentencePiece's trainer, and tokenizer_config.json."""

    train: dict[str, Any]
    config: dict[str, Any]
    added: tuple[dict[str, Any], ...] = field(default=())


RINNA = {
    "byte_fallback": True,
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "model_type": "unigram",
}
LINE = {"byte_fallback": True, "model_type": "unigram"}
LLAMA = {
    "byte_fallback": True,
    "model_type": "bpe",
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
SARASHINA = {
    **RINNA,
    "add_dummy_prefix": True,
    "normalization_rule_name": "identity",
    "user_defined_symbols": ["<|user|>", "<|assistant|>"],
}
T5 = {
    "tokenizer_class": "T5Tokenizer",
    "extra_ids": 0,
    "additional_special_tokens": [],
    "bos_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "[PAD]",
}
SLOW = {
    "tokenizer_class": "LlamaTokenizer",
    "additional_special_tokens": [TURN],
    "pad_token": PAD,
}
MORE = (token(TURN), token(TOOL, special=False), token("単語", special=False), token(PAD))

KINDS = {
    "rinna": Kind(RINNA, T5),
    "line": Kind(LINE, T5 | {"legacy": True}),
    "t5-later": Kind(LINE, T5 | {"legacy": False}),
    "llama-bpe": Kind(LLAMA, SLOW | {"legacy": True}, MORE),
    "llama-bpe-later": Kind(LLAMA, SLOW | {"legacy": False}, MORE),
    "llama-unigram": Kind(LINE, SLOW, MORE),
    "llama-unigram-later": Kind(LINE, SLOW | {"legacy": False}, MORE),
    "llama-no-bos": Kind(LLAMA, SLOW | {"legacy": False, "add_bos_token": False}),
    "sarashina": Kind(
        SARASHINA,
        SLOW | {"legacy": False, "add_prefix_space": False, "add_bos_token": False},
        (token("<|user|>", special=False), token("<|assistant|>", special=False)),
    ),
    "no-prefix-legacy": Kind(SARASHINA, SLOW | {"add_prefix_space": False}, MORE),
}


def write_folder(name: str, lines: Sequence[str], folder: Path) -> Path:
    """Write the folder of a kind, with a tokenizer trained on `lines`; returns the folder."""
    kind = KINDS[name]
    model = _train(tuple(lines), json.dumps(kind.train))
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    config = dict(kind.config)
    if kind.added:
        config["added_tokens_decoder"] = _decoder(model, kind.added)
    text = json.dumps(config, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return folder


def _decoder(model: bytes, added: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The tokens of the file that are special, and the added ones."""
    from sentencepiece import SentencePieceProcessor

    file = SentencePieceProcessor(model_proto=model)
    table = {i: token(text) for i, text in enumerate(("<unk>", "<s>", "</s>"))}
    new = file.get_piece_size()
    for entry in added:
        i = file.piece_to_id(entry["content"])
        if i == file.unk_id():
            i, new = new, new + 1
        table[i] = entry
    return {str(i): entry for i, entry in table.items()}


@cache
def _train(lines: tuple[str, ...], options: str) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=2000,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
        **json.loads(options),
    )
    return model.getvalue()
