"""Checkpoint folders with small tokenizers of every kind that a tokenizer.json holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen(lines: Sequence[str]) -> Any:
    """NFC, split by a regular expression, byte-level BPE; special and other added tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    _train_bpe(made, trainers, pre_tokenizers, lines)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    made.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    names = ("<think>", "</think>", "<tool_call>")
    made.add_tokens([AddedToken(n, special=False, normalized=False) for n in names])
    return made


def neox(lines: Sequence[str]) -> Any:
    """Byte-level BPE with runs of spaces as added tokens that are text."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    _train_bpe(made, trainers, pre_tokenizers, lines)
    made.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    made.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    return made


def gpt2(lines: Sequence[str]) -> Any:
    """GPT-2's: byte-level BPE with one special token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    _train_bpe(made, trainers, pre_tokenizers, lines)
    made.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=True)])
    return made


def _train_bpe(made: Any, trainers: Any, pre_tokenizers: Any, lines: Sequence[str]) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(lines, trainer)


def llm_jp(lines: Sequence[str], *, first: bool = False) -> Any:
    """Unigram with byte fallback; a space in front of every text, or only of the first."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    made = Tokenizer(models.Unigram())
    if first:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    made.decoder = _sentencepiece_decoder(decoders)
    trainer = trainers.UnigramTrainer(
        vocab_size=3000,
        unk_token="<unk>",  # noqa: S106
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
    )
    made.train_from_iterator([line[:60] for line in lines], trainer)
    described = json.loads(made.to_str())
    described["model"]["vocab"][3:3] = [[f"<0x{i:02X}>", -20.0] for i in range(256)]
    described["model"] |= {"byte_fallback": True, "unk_id": 0}
    made = Tokenizer.from_str(json.dumps(described))
    made.add_special_tokens([AddedToken(n, special=True) for n in ("<|turn|>", "<pad>")])
    return made


def llama_bpe(lines: Sequence[str]) -> Any:
    """BPE with byte fallback, as a converted Llama tokenizer has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = _sentencepiece_decoder(decoders)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=2500, special_tokens=names, show_progress=False)
    made.train_from_iterator([word for line in lines for word in line.split("。")], trainer)
    described = json.loads(made.to_str())
    described["added_tokens"] = described["added_tokens"][:3]  # bytes are pieces
    made = Tokenizer.from_str(json.dumps(described))
    made.add_tokens([AddedToken("[INST]", normalized=False), AddedToken("[/INST]", rstrip=True)])
    return made


def llama3(lines: Sequence[str]) -> Any:
    """Byte-level BPE whose post-processor puts a token in front of a text."""
    from tokenizers import AddedToken, processors

    made = qwen(lines)
    made.normalizer = None
    names = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
    made.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    begin = "<|begin_of_text|>"
    template = processors.TemplateProcessing(
        single=f"{begin}:0 $A:0",
        pair=f"{begin}:0 $A:0 {begin}:1 $B:1",
        special_tokens=[(begin, made.token_to_id(begin))],
    )
    made.post_processor = processors.Sequence([made.post_processor, template])
    return made


def metaspace(lines: Sequence[str]) -> Any:
    """Unigram whose decoder is the one of its pre-tokenizer."""
    from tokenizers import decoders, pre_tokenizers

    made = llm_jp(lines)
    made.normalizer = None
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    spaces = decoders.Metaspace(prepend_scheme="always", split=True)
    made.decoder = decoders.Sequence([decoders.ByteFallback(), spaces])
    return made


def _sentencepiece_decoder(decoders: Any) -> Any:
    return decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )


def llm_jp_first(lines: Sequence[str]) -> Any:
    """Unigram of which only a text's beginning gets a space."""
    return llm_jp(lines, first=True)


KINDS: dict[str, Callable[[Sequence[str]], Any]] = {
    made.__name__: made
    for made in (qwen, neox, gpt2, llama3, llm_jp, llm_jp_first, metaspace, llama_bpe)
}
# config.json and tokenizer_config.json of each kind.
_SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen": (
        "qwen2",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_bos_token": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        },
    ),
    "neox": ("gpt_neox", {"tokenizer_class": "GPTNeoXTokenizer"}),
    "gpt2": ("gpt2", {}),
    "llama3": (
        "llama",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
        },
    ),
    "llm_jp": ("llama", _SENTENCEPIECE | {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "llm_jp_first": ("llama", _SENTENCEPIECE | {"tokenizer_class": "LlamaTokenizer"}),
    "metaspace": ("llama", _SENTENCEPIECE | {"add_bos_token": False}),
    "llama_bpe": ("mistral", _SENTENCEPIECE | {"tokenizer_class": "LlamaTokenizerFast"}),
}


def write(kind: str, lines: Sequence[str], folder: Path) -> Path:
    """Write a tokenizer.json trained on `lines` to `folder`; returns its path."""
    path = folder / "tokenizer.json"
    _train(kind, tuple(lines)).save(str(path))
    return path


def write_folder(kind: str, lines: Sequence[str], folder: Path) -> Path:
    """Write the same with the other files that name the tokenizer; returns the folder."""
    write(kind, lines, folder)
    model, config = CONFIGS[kind]
    (folder / "config.json").write_text(json.dumps({"model_type": model}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@cache
def _train(kind: str, lines: tuple[str, ...]) -> Any:
    return KINDS[kind](lines)
