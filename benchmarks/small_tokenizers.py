"""Small tokenizers for random checkpoints, of the classes that published models use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from issun.runtime.text.json_tokenizer import byte_alphabet

SPECIAL = {
    "cls_token": "[CLS]",
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SENTENCEPIECE = {"T5Tokenizer": "spiece.model", "LlamaTokenizer": "tokenizer.model"}
END, TURN, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # ids 0, 1 and 2
_PIECES, _NUM_BYTES = 600, 256
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary_text() -> str:
    """Short Japanese lines with few distinct characters, which even a small vocabulary covers."""
    return Path(__file__).with_name("vocabulary.txt").read_text(encoding="utf-8")


def write_tokenizer(folder: Path, name: str, rows: int, spiece: Path | None = None) -> None:
    """Write a tokenizer of the class `name` with fewer than `rows` tokens to `folder`.

    T5Tokenizer and LlamaTokenizer read `spiece`, or a SentencePiece model that is trained on
    the vocabulary text; all others a byte-level BPE without merges.
    """
    config: dict[str, Any] = {"tokenizer_class": name}
    if name not in SENTENCEPIECE and spiece is None:
        special: tuple[str, ...] = (END,)
        config |= {"eos_token": END, "unk_token": None, "pad_token": END}
        if name == "Qwen2Tokenizer":
            special = (END, TURN, TURN_END)
            config |= {"eos_token": TURN_END, "chat_template": _CHATML}
        _write_byte_level(folder / "tokenizer.json", special)
        write_json(folder / "tokenizer_config.json", config)
        return
    path = folder / SENTENCEPIECE.get(name, "spiece.model")
    if name == "LlamaTokenizer":
        config |= {"legacy": False, "add_bos_token": True}
    write_json(folder / "tokenizer_config.json", SPECIAL | {"do_lower_case": False} | config)
    if spiece is not None:
        shutil.copyfile(spiece, path)
        return
    pieces = min(rows - 24, _PIECES)
    train_tokenizer(path, pieces=pieces, byte_fallback=name == "LlamaTokenizer")


def train_tokenizer(path: Path, *, pieces: int, byte_fallback: bool = False) -> None:
    """Train a SentencePiece unigram model on the vocabulary text, with the ids of the 1b model."""
    import sentencepiece  # noqa: PLC0415

    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(vocabulary_text().splitlines()),
            model_writer=file,
            vocab_size=pieces + _NUM_BYTES * byte_fallback,
            hard_vocab_limit=False,
            character_coverage=1.0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_id=4,
            pad_piece="[PAD]",
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            byte_fallback=byte_fallback,
            minloglevel=2,
        )


def _write_byte_level(path: Path, tokens: tuple[str, ...]) -> None:
    """Write a tokenizer.json by hand, so that the `tokenizers` package is not needed."""
    special = {token: i for i, token in enumerate(tokens)}
    alphabet = {character: len(special) + byte for character, byte in byte_alphabet().items()}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    added = [
        {
            **{"id": i, "content": token, "special": True, "normalized": False},
            **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
        }
        for token, i in special.items()
    ]
    model = {
        **{"type": "BPE", "vocab": special | alphabet, "merges": []},
        **dict.fromkeys(
            ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
        ),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
    }
    write_json(
        path,
        {
            **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": added},
            **{"normalizer": {"type": "NFC"}, "post_processor": None},
            "pre_tokenizer": byte_level | {"use_regex": True},
            "decoder": byte_level | {"use_regex": True},
            "model": model,
        },
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an indented JSON object."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
