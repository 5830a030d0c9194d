"""Llama, Mistral, Qwen2 and Qwen3: RMS norms, rotary positions, grouped KV heads, gated MLPs."""

from __future__ import annotations

from typing import Any

from issun.export.models.family import Family
from issun.export.models.fields import Fields
from issun.export.network import Network

_QWEN = {
    "max_position_embeddings": 32_768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
# The value of an absent field where the families differ; null means no grouping and no window.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
}


def _network(c: Fields) -> Network:
    kind = c.raw["model_type"]
    c = c.with_defaults(_DEFAULTS[kind])
    width, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    layers = c.integer("num_hidden_layers")
    groups, head = c.integer("num_key_value_heads", heads), c.integer("head_dim", width // heads)
    if heads % groups:
        c.refuse("num_key_value_heads")
    return Network(
        family=kind,
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_kv_head=groups,
        head_dim=head,
        n_inner=c.integer("intermediate_size"),
        n_positions=c.integer("max_position_embeddings"),
        vocab_size=c.integer("vocab_size"),
        activation=c.activation("hidden_act", "silu"),
        epsilon=c.number("rms_norm_eps", 1e-6, most=1),
        tie_word_embeddings=c.flag("tie_word_embeddings", default=False),
        scales=(head**-0.5,) * layers,
        norm="rms",
        biases=_biases(c, kind),
        gated=True,
        head_norms=kind == "qwen3",
        rotary=c.rotary(head),
        windows=_windows(c, kind, layers),
    )


def _biases(c: Fields, kind: str) -> frozenset[str]:
    if kind == "mistral":
        return frozenset()
    if kind == "qwen2":
        return frozenset({"qkv"})
    attention = {"qkv", "out"} if c.flag("attention_bias", default=False) else set()
    mlp = kind == "llama" and c.flag("mlp_bias", default=False)
    return frozenset(attention | ({"gate", "up", "down"} if mlp else set()))


def _windows(c: Fields, kind: str, layers: int) -> tuple[int, ...]:
    on = c.raw.get("sliding_window") is not None
    if kind in ("llama", "mistral"):  # transformers ignores their layer_types
        if kind == "llama":
            c.only("sliding_window", None)
        c.only("layer_types", ["sliding_attention" if on else "full_attention"] * layers)
        return c.windows([True] * layers, on=on)
    # Qwen's configs name a window that is switched off.
    on &= c.flag("use_sliding_window", default=False)
    first = c.integer("max_window_layers", least=0)
    return c.windows([layer >= first for layer in range(layers)], on=on)


LLAMA = Family(
    network=_network,
    classes=("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
    base="model.",
    head="lm_head",
    top={"embed": "embed_tokens", "norm": "norm"},
    layer="layers.{}.",
    block={
        "norm_1": "input_layernorm",
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
        "out": "self_attn.o_proj",
        "norm_2": "post_attention_layernorm",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
    buffers=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
)
