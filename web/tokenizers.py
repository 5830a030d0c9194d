"""Which tokenizers run in a browser: those whose ids were compared with Python's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from issun.runtime.manifest import Tokens
from issun.runtime.text.json_tokenizer import HIDDEN, byte_alphabet
from issun.web.errors import WebError

_UNIGRAM = 1  # TrainerSpec.ModelType
_CASES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SEQUENCE = ["Split", "ByteLevel"]
# Of Qwen and of Llama 3; that of GPT-2 is ByteLevel's own.
_SPLITS = (_CASES + r"\p{N}" + _REST, _CASES + r"\p{N}{1,3}" + _REST)
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_SPACES = (  # normalizer and pre-tokenizer: a space before every text, or before the first
    [{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, _REPLACE]}, None],
    [
        None,
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
    ],
)
_FALLBACK = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ],
}


def check_tokenizer(folder: Path, tokens: Tokens) -> None:
    """Raise WebError with the reason unless the tokenizer's ids in a browser are Python's."""
    content = (folder / tokens.file).read_bytes()
    if tokens.kind == "json":
        described = json.loads(content)
        if not (_is_byte_level(described) or _falls_back_to_bytes(described)):
            raise WebError(
                "{folder} cannot run in a browser: of tokenizer.json only byte-level BPE as in "
                "GPT-2, GPT-NeoX, Qwen and Llama 3, and models with byte fallback as in Llama 2 "
                "and LLM-jp are supported there.",
                folder=folder,
            )
    elif tokens.kind != "t5" or tokens.added or not tokens.legacy:
        raise WebError(
            "{folder} cannot run in a browser: of SentencePiece tokenizers only the plain "
            "T5Tokenizer is supported there, without added tokens.",
            folder=folder,
        )
    elif not _is_unigram(content):
        raise WebError(
            "{folder} cannot run in a browser: only SentencePiece's unigram models without byte "
            "fallback are supported there.",
            folder=folder,
        )


def _is_unigram(content: bytes) -> bool:
    model = sentencepiece_model_pb2.ModelProto.FromString(content)  # type: ignore[attr-defined]
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    unusual = trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces
    return trainer.model_type == _UNIGRAM and not trainer.byte_fallback and not unusual


def _is_byte_level(described: dict[str, Any]) -> bool:
    """Whether a bundle's tokenizer.json is of the form that engine/bpe.mjs reads."""
    model, normalizer = described["model"], described["normalizer"]
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    return (
        model["type"] == "BPE"
        and not (affixes or model.get("byte_fallback") or model.get("dropout"))
        and byte_alphabet().keys() <= model["vocab"].keys()
        and normalizer in (None, {"type": "NFC"})
        and _splits_bytes(described["pre_tokenizer"])
        and (described["decoder"] or {}).get("type") == "ByteLevel"
        and not any(_is_unusual(token, normalizer) for token in described["added_tokens"])
    )


def _splits_bytes(pre: dict[str, Any] | None) -> bool:
    if pre is None or pre["type"] == "ByteLevel":
        return pre is not None and pre["use_regex"] and not pre["add_prefix_space"]
    if pre["type"] != "Sequence" or [p["type"] for p in pre["pretokenizers"]] != _SEQUENCE:
        return False
    split, byte_level = pre["pretokenizers"]
    return (
        split["pattern"].get("Regex") in _SPLITS
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and not byte_level["use_regex"]
        and not byte_level["add_prefix_space"]
    )


def _falls_back_to_bytes(described: dict[str, Any]) -> bool:
    """Whether a bundle's tokenizer.json is of the form that engine/byte_fallback.mjs reads."""
    model, normalizer = described["model"], described["normalizer"]
    vocab = model["vocab"]
    known = {text for text, _ in vocab} if model["type"] == "Unigram" else {*vocab}
    return (
        bool(model.get("byte_fallback"))
        and not (model.get("dropout") or model.get("ignore_merges"))
        and {f"<0x{byte:02X}>" for byte in range(256)} <= known
        and [normalizer, described["pre_tokenizer"]] in _SPACES
        and described["decoder"] == _FALLBACK
        and not any(_is_unusual(token, normalizer) for token in described["added_tokens"])
        and not any(normalizer and token["normalized"] for token in described["added_tokens"])
    )


def _is_unusual(token: dict[str, Any], normalizer: object) -> bool:
    """Whether a token takes white space or words into account, or may be composed with a text."""
    composed = token["content"].startswith(HIDDEN) and token["normalized"] and normalizer
    return bool(token["lstrip"] or token["rstrip"] or token["single_word"] or composed)
