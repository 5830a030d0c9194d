"""GPT-NeoX (Black et al., 2022): partial rotary positions, queries, keys and values by head."""

from __future__ import annotations

from issun.export.models.family import Family
from issun.export.models.fields import Fields
from issun.export.network import Network


def _network(c: Fields) -> Network:
    c = c.with_defaults({"max_position_embeddings": 2048})
    width, heads = c.integer("hidden_size"), c.integer("num_attention_heads")
    layers, head = c.integer("num_hidden_layers"), width // heads
    if width % heads:
        c.refuse("num_attention_heads")
    c.only("head_dim", head)
    attention = {"qkv", "out"} if c.flag("attention_bias", default=True) else set()
    return Network(
        family="gpt_neox",
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_kv_head=heads,
        head_dim=head,
        n_inner=c.integer("intermediate_size"),
        n_positions=c.integer("max_position_embeddings"),
        vocab_size=c.integer("vocab_size"),
        activation=c.activation("hidden_act", "gelu"),
        epsilon=c.number("layer_norm_eps", 1e-5, most=1),
        tie_word_embeddings=c.flag("tie_word_embeddings", default=False),
        scales=(head**-0.5,) * layers,
        biases=frozenset({"up", "down"} | attention),
        parallel=c.flag("use_parallel_residual", default=True),
        rotary=c.rotary(head, theta="rotary_emb_base", share=("rotary_pct", 0.25)),
    )


GPT_NEOX = Family(
    network=_network,
    classes=("GPTNeoXForCausalLM", "GPTNeoXModel"),
    base="gpt_neox.",
    head="embed_out",
    top={"embed": "embed_in", "norm": "final_layer_norm"},
    layer="layers.{}.",
    block={
        "norm_1": "input_layernorm",
        "qkv": "attention.query_key_value",
        "out": "attention.dense",
        "norm_2": "post_attention_layernorm",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
    buffers=r"layers\.\d+\.attention\.(?:bias|masked_bias|rotary_emb\.inv_freq)",
    qkv_by_head=True,
)
