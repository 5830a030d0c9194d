"""Small random checkpoints of every family, made so that a wrong graph gives wrong logits.

Each is saved by transformers. Logits have a standard deviation above 2; biases, gains and the norms
of heads are perturbed, so that leaving any of them out would be noticed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from issun.benchmarks.small_tokenizers import SPECIAL

Fields = dict[str, Any]

_GPT2: Fields = {"vocab_size": 512, "n_embd": 96, "n_head": 6, "n_layer": 3, "n_positions": 256}
_NEOX: Fields = {
    "vocab_size": 512,
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
}
_LLAMA: Fields = _NEOX | {"num_key_value_heads": 2}
_LLAMA3: Fields = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN: Fields = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]

# name -> model_type and the fields of config.json that differ from the family's defaults
VARIANTS: dict[str, tuple[str, Fields]] = {
    "gpt2": ("gpt2", _GPT2),
    "gpt2-untied-gelu": ("gpt2", _GPT2 | {
        "n_head": 12, "tie_word_embeddings": False, "activation_function": "gelu"}),
    "gpt2-unscaled-relu": ("gpt2", _GPT2 | {
        "n_head": 12, "scale_attn_weights": False, "activation_function": "relu", "n_inner": 90}),
    "gpt2-scaled-by-layer": ("gpt2", _GPT2 | {
        "n_embd": 120, "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-3}),
    "neox-parallel-quarter": ("gpt_neox", _NEOX),
    "neox-sequential-whole": ("gpt_neox", _NEOX | {
        "rotary_pct": 1.0, "use_parallel_residual": False}),
    "neox-sequential-half": ("gpt_neox", _NEOX | {
        "num_attention_heads": 3, "rotary_pct": 0.5, "use_parallel_residual": False,
        "hidden_act": "gelu_new"}),
    "neox-head-20-tied": ("gpt_neox", _NEOX | {
        "hidden_size": 120, "rotary_pct": 0.3, "tie_word_embeddings": True}),
    "neox-head-24-relu": ("gpt_neox", _NEOX | {
        "num_attention_heads": 4, "rotary_pct": 0.5, "hidden_act": "relu"}),
    "neox-no-attention-bias": ("gpt_neox", _NEOX | {
        "attention_bias": False, "hidden_act": "gelu_fast", "layer_norm_eps": 1e-3}),
    "neox-theta-linear": ("gpt_neox", _NEOX | {
        "rotary_emb_base": 500_000, "rotary_pct": 1.0,
        "rope_scaling": {"type": "linear", "factor": 2.0}}),
    "llama": ("llama", _LLAMA),
    "llama-biases": ("llama", _LLAMA | {
        "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-3}),
    "llama-head-20-tied": ("llama", _LLAMA | {"hidden_size": 120, "tie_word_embeddings": True}),
    "llama-head-24-one-kv-head": ("llama", _LLAMA | {
        "num_attention_heads": 4, "num_key_value_heads": 1}),
    "llama-head-32-not-width": ("llama", _LLAMA | {"head_dim": 32, "rope_theta": 500_000.0}),
    "llama-ungrouped-gelu": ("llama", _LLAMA | {
        "num_key_value_heads": 6, "hidden_act": "gelu_pytorch_tanh"}),
    "llama-linear": ("llama", _LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama-dynamic": ("llama", _LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    "llama-llama3": ("llama", _LLAMA | {"rope_scaling": _LLAMA3, "rope_theta": 500_000.0}),
    "llama-yarn": ("llama", _LLAMA | {"rope_scaling": _YARN}),
    "llama-yarn-mscale": ("llama", _LLAMA | {
        "rope_scaling": _YARN | {"mscale": 0.7, "mscale_all_dim": 1.2, "beta_fast": 16.0}}),
    "mistral-window": ("mistral", _LLAMA | {"sliding_window": 20}),
    "mistral-window-2-head-24": ("mistral", _LLAMA | {"sliding_window": 2, "head_dim": 24}),
    "mistral-no-window": ("mistral", _LLAMA | {"sliding_window": None, "rope_theta": 1e6}),
    "qwen2-window-off": ("qwen2", _LLAMA | {
        "rope_theta": 1e6, "sliding_window": 7, "use_sliding_window": False}),
    "qwen2-window-tied": ("qwen2", _LLAMA | {
        "sliding_window": 9, "use_sliding_window": True, "max_window_layers": 1,
        "tie_word_embeddings": True}),
    "qwen2-layer-types": ("qwen2", _LLAMA | {
        "sliding_window": 33, "use_sliding_window": True, "layer_types": _ALTERNATING}),
    "qwen3": ("qwen3", _LLAMA | {"head_dim": 32, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen3-head-24-bias": ("qwen3", _LLAMA | {
        "head_dim": 24, "attention_bias": True, "rms_norm_eps": 1e-3}),
    "qwen3-head-20-window": ("qwen3", _LLAMA | {
        "head_dim": 20, "sliding_window": 20, "use_sliding_window": True,
        "layer_types": _ALTERNATING}),
    "qwen3-yarn": ("qwen3", _LLAMA | {"head_dim": 16, "rope_scaling": _YARN}),
}  # fmt: skip
# Rotary fields as transformers 5 writes them: name -> the variant whose weights and logits it has.
RENAMED = {
    "neox-5": "neox-head-20-tied",
    "neox-5-linear": "neox-theta-linear",
    "llama-5": "llama-llama3",
    "mistral-5": "mistral-no-window",
    "qwen3-5": "qwen3-yarn",
}


def make(name: str) -> Any:
    """The random model of a variant, in float32."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, fields = VARIANTS[name]
    torch.manual_seed(0)
    # Eager attention, since the default one ignores some of the flags.
    model = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[kind](**fields), attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        for key, values in model.named_parameters():
            noise = torch.randn_like(values)
            if values.ndim == 2:
                values.copy_(noise * _spread(kind, key))
            else:  # biases and gains
                values.add_(noise * 0.3)
    return model.eval()


def _spread(kind: str, key: str) -> float:
    """Enough for logits that differ by 2; more, and float32 itself is off by 1e-4 in gated MLPs."""
    if any(part in key for part in ("lm_head", "embed", "wte")):
        return 0.35
    return 0.14 if kind in ("llama", "mistral", "qwen2", "qwen3") else 0.2


def save(model: Any, folder: Path, spiece: Path) -> Path:
    """Save a model of `make` to the new folder `folder` as a complete checkpoint."""
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL), encoding="utf-8")
    shutil.copyfile(spiece, folder / "spiece.model")
    return folder


def rename_rotary_fields(folder: Path) -> None:
    """Write the rotary fields of a config.json as transformers 5 does, in `rope_parameters`."""
    path = folder / "config.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    scaling = raw.pop("rope_scaling", None) or {"rope_type": "default"}
    theta = raw.pop("rotary_emb_base", None) or raw.pop("rope_theta", None)
    scaling = {"rope_type": scaling.get("rope_type") or scaling["type"]} | scaling
    scaling.pop("type", None)
    raw.pop("rope_theta", None)
    parameters = scaling | {"rope_theta": theta}
    if share := raw.pop("rotary_pct", None):
        raw.pop("partial_rotary_factor", None)
        parameters["partial_rotary_factor"] = share
    path.write_text(json.dumps(raw | {"rope_parameters": parameters}), encoding="utf-8")
