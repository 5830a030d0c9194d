"""Tables of added tokens in every file format, for a SentencePiece file of 400 pieces.

Each has the files of a checkpoint's folder without the SentencePiece file.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from issun.benchmarks.small_tokenizers import SPECIAL

Files = dict[str, dict[str, Any]]

NAMED: dict[str, Any] = {**SPECIAL, "extra_ids": 0, "tokenizer_class": "T5Tokenizer"}
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")


def token(content: str, *, special: bool = True, **flags: bool) -> dict[str, Any]:
    """An entry of `added_tokens_decoder`; flags that are not given are false."""
    return {"content": content, "special": special, **dict.fromkeys(_FLAGS, False), **flags}


_FILE = {i: token(text) for i, text in enumerate(("[CLS]", "<unk>", "<s>", "</s>"))}
_FILE |= {4: token("[PAD]"), 5: token("[SEP]"), 6: token("[MASK]")}


def _decoder(tokens: dict[int, dict[str, Any]], changes: dict[str, Any] | None = None) -> Files:
    table = {str(i): entry for i, entry in (_FILE | tokens).items()}
    return {"tokenizer_config.json": NAMED | {"added_tokens_decoder": table} | (changes or {})}


SPELLINGS: dict[str, Files] = {
    "decoder": _decoder(
        {400: token("<|im_end|>"), 401: token("<|user|>")},
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|user|>"]},
    ),
    "decoder with flags": _decoder(
        {
            400: token("<|im_end|>", rstrip=True),
            401: token("<|user|>", lstrip=True, rstrip=True),
            402: token("<tool>", special=False, normalized=True),
            403: token("単語", special=False, single_word=True),
            404: token("<b>", special=False, lstrip=True),
            405: token("</b>", special=False, rstrip=True),
        },
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|user|>"]},
    ),
    "decoder with holes": _decoder(
        {403: token("<|im_end|>"), 407: token("<tool>", special=False), 410: token("<|user|>")},
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|user|>"]},
    ),
    "new ones below holes": _decoder(
        {407: token("<tool>", special=False), 410: token("<|user|>")},
        {
            "eos_token": "<|im_end|>",
            "mask_token": "<mask>",
            "additional_special_tokens": ["<|user|>", "<new>"],
        },
    ),
    "flagged and not listed": _decoder(
        {400: token("<|user|>"), 401: token("<tool>", special=False)},
        {"additional_special_tokens": ["<tool>"]},
    ),
    "over a piece": _decoder(
        {30: token("<tool>", special=False), 400: token("です", special=False)}
    ),
    "special map ignored": _decoder({400: token("<|im_end|>")}, {"eos_token": "<|im_end|>"})
    | {"special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["<x>"]}},
    "added_tokens.json": {
        "tokenizer_config.json": NAMED,
        "special_tokens_map.json": {
            **SPECIAL,
            "eos_token": "<|im_end|>",
            "additional_special_tokens": ["<|user|>"],
        },
        "added_tokens.json": {"<|im_end|>": 400, "<|user|>": 401, "<tool>": 402, "単語": 403},
    },
    "added_tokens.json with holes": {
        "tokenizer_config.json": NAMED | {"additional_special_tokens": ["<new>"]},
        "special_tokens_map.json": SPECIAL,
        "added_tokens.json": {"<tool>": 405, "<|user|>": 403},
    },
    "special map of objects": {
        "tokenizer_config.json": NAMED,
        "special_tokens_map.json": {
            **SPECIAL,
            "eos_token": token("<|im_end|>", rstrip=True),
            "additional_special_tokens": [token("<|user|>", lstrip=True), "<new>"],
        },
    },
    "strings alone": {
        "tokenizer_config.json": NAMED
        | {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|user|>", "[SEP]", "<new>"]},
    },
    "objects of an older version": {
        "tokenizer_config.json": NAMED
        | {"eos_token": {"__type": "AddedToken", **token("<|im_end|>", lstrip=True)}},
        "special_tokens_map.json": {},
    },
    "sentinels": {"tokenizer_config.json": NAMED | {"extra_ids": 10, "eos_token": "<|im_end|>"}},
    "sentinels beside others": {
        "tokenizer_config.json": NAMED
        | {"extra_ids": 5, "additional_special_tokens": ["<|user|>"]},
    },
    "sentinels listed": {
        "tokenizer_config.json": NAMED
        | {
            "extra_ids": 3,
            "additional_special_tokens": [
                "<|user|>",
                "<extra_id_0>",
                "<extra_id_1>",
                "<extra_id_2>",
            ],
        },
    },
    "named by no role": {
        "tokenizer_config.json": NAMED | {"extra_special_tokens": {"tool_token": "<tool>"}},
    },
    "tokenizer.json": {
        "tokenizer_config.json": NAMED,
        "tokenizer.json": {
            "added_tokens": [
                {"id": 400, **token("<|im_end|>")},
                {"id": 401, **token("<tool>", special=False, rstrip=True)},
            ]
        },
    },
    "no pad": {
        "tokenizer_config.json": {k: v for k, v in NAMED.items() if k != "pad_token"}
        | {"additional_special_tokens": ["<|user|>"]},
    },
}

# Every row after the pieces of a 440-row model is a token, and every second one is text.
FULL = _decoder({i: token(f"<t{i}>", special=i % 2 == 0) for i in range(400, 440)})

_PIECES = (
    ("<|im_end|>", "<|user|>", "<tool>", "単語", "<b>", "</b>", "です", "<new>", "<x>", "<mask>"),
    ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "<extra_id_99>", "<pad>"),
    tuple(SPECIAL.values()),
    ("日本で一番", "高い山は", "です。", "猫", "々〆ヶ", "😀", "㍻", "［ＳＥＰ］", "＜tool＞"),
    (" ", "  ", "\u3000", "\t", "\n", "\\n", "▁"),
    ("<|IM_END|>", "<TOOL>", "<", "|>", "<|", "user", "ABC", "Ω", "\ud800", "\x00"),
)


def write_spelling(folder: Path, spiece: Path, name: str) -> Path:
    """Write the tokenizer files of a spelling to the new folder `folder`."""
    folder.mkdir()
    shutil.copyfile(spiece, folder / "spiece.model")
    return write_files(folder, SPELLINGS[name])


def write_files(folder: Path, files: Files) -> Path:
    """Write JSON files to `folder`, replacing existing ones."""
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def added_strings(count: int, seed: int = 0) -> list[str]:
    """Return `count` random texts with added tokens, white space and other text."""
    rng = random.Random(seed)
    return [
        "".join(rng.choice(rng.choice(_PIECES)) for _ in range(rng.randint(1, 10)))
        for _ in range(count)
    ]
