"""The config.json of published models by family and size, for checkpoints with random weights.

The numbers are those of the models' public config.json as far as they are known; docs/models.md
says which could not be checked. `tiny` is not a model: it is for tests and for trying commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

# Ids of the small tokenizers that `make_checkpoint` writes.
_SENTENCEPIECE = {"bos_token_id": 2, "eos_token_id": 3}
_UNIGRAM = {**_SENTENCEPIECE, "tokenizer_class": "T5Tokenizer"}
_LLAMA = {**_SENTENCEPIECE, "tokenizer_class": "LlamaTokenizer"}
_NEOX = {"bos_token_id": 0, "eos_token_id": 0, "tokenizer_class": "GPTNeoXTokenizer"}
_QWEN2 = {"bos_token_id": 0, "eos_token_id": 2, "tokenizer_class": "Qwen2Tokenizer"}


def _gpt2(
    layers: int,
    width: int,
    heads: int,
    vocab: int,
    *,
    context: int = 1024,
    activation: str = "gelu_new",
) -> Config:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": activation,
        **_UNIGRAM,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": context,
        "n_embd": width,
        "n_head": heads,
        "n_inner": 4 * width,
        "n_layer": layers,
        "n_positions": context,
        "vocab_size": vocab,
    }


def _gpt_neox(
    layers: int,
    width: int,
    heads: int,
    vocab: int,
    *,
    rotary_pct: float = 1.0,
    parallel: bool = False,
    tokens: Config = _UNIGRAM,
) -> Config:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        **tokens,
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "rotary_emb_base": 10_000,
        "rotary_pct": rotary_pct,
        "tie_word_embeddings": False,
        "use_parallel_residual": parallel,
        "vocab_size": vocab,
    }


def _llama(
    layers: int,
    width: int,
    heads: int,
    inner: int,
    vocab: int,
    *,
    kind: str = "llama",
    groups: int | None = None,
    context: int = 4096,
    theta: float = 10_000.0,
    epsilon: float = 1e-5,
) -> Config:
    config = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        **(_QWEN2 if kind.startswith("qwen") else _LLAMA),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": inner,
        "max_position_embeddings": context,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": groups or heads,
        "rms_norm_eps": epsilon,
        "rope_theta": theta,
        "tie_word_embeddings": False,
        "vocab_size": vocab,
    }
    if kind == "llama":
        config |= {"attention_bias": False, "mlp_bias": False}
    elif kind == "mistral":
        config |= {"sliding_window": None}
    return config


def _sarashina(layers: int, width: int, heads: int, inner: int, groups: int) -> Config:
    vocab, theta = 102_400, 500_000.0
    return _llama(layers, width, heads, inner, vocab, groups=groups, context=8192, theta=theta)


def _qwen2(
    layers: int, width: int, heads: int, inner: int, vocab: int, *, groups: int, context: int
) -> Config:
    sizes = (layers, width, heads, inner, vocab)
    more = _llama(*sizes, kind="qwen2", groups=groups, context=context, theta=1e6, epsilon=1e-6)
    return {**more, "tie_word_embeddings": True}


def _qwen3(
    layers: int, width: int, heads: int, inner: int, vocab: int, *, groups: int, context: int
) -> Config:
    sizes = (layers, width, heads, inner, vocab)
    more = _llama(*sizes, kind="qwen3", groups=groups, context=context, theta=1e6, epsilon=1e-6)
    return {**more, "tie_word_embeddings": True, "head_dim": min(128, width // 2)}


_LLM_JP_VOCAB, _OPEN_CALM_VOCAB, _QWEN_VOCAB = 99_584, 52_224, 151_936

SHAPES: Mapping[str, Mapping[str, Config]] = {
    "gpt2": {
        "tiny": _gpt2(2, 64, 4, 1024, activation="gelu_fast"),
        "small": _gpt2(12, 768, 12, 50_257),  # gpt2
        "rinna-xsmall": _gpt2(6, 512, 8, 32_000),  # rinna/japanese-gpt2-xsmall
        "rinna-small": _gpt2(12, 768, 12, 32_000),  # rinna/japanese-gpt2-small
        "rinna-medium": _gpt2(24, 1024, 16, 32_000),  # rinna/japanese-gpt2-medium
        "abeja-large": _gpt2(36, 1280, 20, 32_000),  # abeja/gpt2-large-japanese
        # inu-ai/alpaca-guanaco-japanese-gpt-1b, rinna/japanese-gpt-1b
        "1b": _gpt2(24, 2048, 16, 44_928, activation="gelu_fast"),
        "1.3b": _gpt2(24, 2048, 16, 50_688, context=2048),  # llm-jp/llm-jp-1.3b-v1.0
        # line-corporation/japanese-large-lm-1.7b
        "1.7b": _gpt2(24, 2304, 24, 51_200, context=2048, activation="gelu"),
    },
    "gpt-neox": {
        "tiny": _gpt_neox(2, 64, 4, 1024, rotary_pct=0.5, parallel=True),
        "3.6b": _gpt_neox(36, 2816, 22, 32_000),  # rinna/japanese-gpt-neox-3.6b
        "line-3.6b": _gpt_neox(30, 3072, 32, 51_200),  # line-corporation/japanese-large-lm-3.6b
        "open-calm-small": _gpt_neox(12, 768, 12, _OPEN_CALM_VOCAB, tokens=_NEOX),
        "open-calm-medium": _gpt_neox(24, 1024, 16, _OPEN_CALM_VOCAB, tokens=_NEOX),
        "open-calm-large": _gpt_neox(24, 1536, 16, _OPEN_CALM_VOCAB, tokens=_NEOX),
        "open-calm-1b": _gpt_neox(24, 2048, 16, _OPEN_CALM_VOCAB, tokens=_NEOX),
        "open-calm-3b": _gpt_neox(32, 2560, 32, _OPEN_CALM_VOCAB, tokens=_NEOX),
        "open-calm-7b": _gpt_neox(32, 4096, 32, _OPEN_CALM_VOCAB, tokens=_NEOX),
    },
    "llama": {
        "tiny": _llama(2, 64, 4, 160, 1024, groups=2),
        "440m": _llama(16, 1024, 8, 3584, _LLM_JP_VOCAB),  # llm-jp/llm-jp-3-440m
        "1.8b": _llama(24, 2048, 16, 7168, _LLM_JP_VOCAB),  # llm-jp/llm-jp-3-1.8b
        "3.7b": _llama(28, 3072, 24, 8192, _LLM_JP_VOCAB),  # llm-jp/llm-jp-3-3.7b
        # sbintuitions/sarashina2.2-0.5b, -1b and -3b
        "sarashina-0.5b": _sarashina(24, 1280, 16, 4480, groups=8),
        "sarashina-1b": _sarashina(24, 1792, 16, 6272, groups=8),
        "sarashina-3b": _sarashina(32, 2560, 20, 8960, groups=4),
    },
    "mistral": {
        "tiny": _llama(2, 64, 4, 160, 1024, kind="mistral", groups=2),
        # Rakuten/RakutenAI-2.0-mini
        "1.5b": _llama(22, 2048, 16, 7168, 48_000, kind="mistral", context=131_072, theta=1e6),
    },
    "qwen2": {
        "tiny": _qwen2(2, 64, 4, 160, 1024, groups=2, context=4096),
        # SakanaAI/TinySwallow-1.5B, which is Qwen2.5-1.5B
        "1.5b": _qwen2(28, 1536, 12, 8960, _QWEN_VOCAB, groups=2, context=32_768),
    },
    "qwen3": {
        "tiny": _qwen3(2, 64, 4, 160, 1024, groups=2, context=4096),
        # Qwen/Qwen3-0.6B and -1.7B
        "0.6b": _qwen3(28, 1024, 16, 3072, _QWEN_VOCAB, groups=8, context=40_960),
        "1.7b": _qwen3(28, 2048, 16, 6144, _QWEN_VOCAB, groups=8, context=40_960),
    },
}
