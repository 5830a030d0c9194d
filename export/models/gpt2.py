"""GPT-2 (Radford et al., 2019): learned positions, one linear layer for queries, keys, values."""

from __future__ import annotations

import math

from issun.export.errors import CheckpointError
from issun.export.models.family import Family
from issun.export.models.fields import Fields
from issun.export.network import Network

# Names that transformers prefers to GPT-2's own if both exist.
_ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def _network(c: Fields) -> Network:
    for alias, name in _ALIASES.items():
        c.only(alias, c.raw.get(name))
    if c.flag("add_cross_attention", default=False):
        c.refuse("add_cross_attention")
    width, heads, layers = c.integer("n_embd"), c.integer("n_head"), c.integer("n_layer")
    if width % heads:
        raise CheckpointError(
            "{path}: n_embd {width} is not a multiple of n_head {heads}.",
            path=c.path,
            width=width,
            heads=heads,
        )
    head = width // heads
    scale = 1 / math.sqrt(head) if c.flag("scale_attn_weights", default=True) else 1.0
    by_layer = c.flag("scale_attn_by_inverse_layer_idx", default=False)
    return Network(
        family="gpt2",
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_kv_head=heads,
        head_dim=head,
        n_inner=c.integer("n_inner", 4 * width),
        n_positions=c.integer("n_positions"),
        vocab_size=c.integer("vocab_size"),
        activation=c.activation("activation_function", "gelu_new"),
        epsilon=c.number("layer_norm_epsilon", 1e-5, most=1),
        tie_word_embeddings=c.flag("tie_word_embeddings", default=True),
        scales=tuple(scale / (layer + 1 if by_layer else 1) for layer in range(layers)),
        learned_positions=True,
    )


GPT2 = Family(
    network=_network,
    classes=("GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model"),
    base="transformer.",
    head="lm_head",
    top={"embed": "wte", "positions": "wpe", "norm": "ln_f"},
    layer="h.{}.",
    block={
        "norm_1": "ln_1",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "norm_2": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    buffers=r"h\.\d+\.(?:attn|crossattention)\.(?:bias|masked_bias)",
    stored_in_out=True,
)
