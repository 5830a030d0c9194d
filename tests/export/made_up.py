"""A made-up family, as one would add a real one: a file like those of `issun.export.models`.

It has sequential blocks with layer norms, a gated MLP with biases, and grouped KV heads, in which a
fraction of the channels rotates. Queries, keys and values are stored separately.
"""

from __future__ import annotations

from issun.export.models.family import Family
from issun.export.models.fields import Fields
from issun.export.network import Network


def _network(c: Fields) -> Network:
    width, heads, layers = c.integer("dim"), c.integer("heads"), c.integer("depth")
    head = c.integer("head_width", width // heads)
    return Network(
        family="made_up",
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_kv_head=c.integer("key_heads"),
        head_dim=head,
        n_inner=c.integer("inner"),
        n_positions=c.integer("max_position_embeddings"),
        vocab_size=c.integer("vocabulary"),
        activation=c.activation("act", "silu"),
        epsilon=c.number("eps", 1e-5, most=1),
        tie_word_embeddings=False,
        scales=(1 / head,) * layers,
        biases=frozenset({"gate", "up", "down"}),
        gated=True,
        rotary=c.rotary(head, theta="base", share=("rotating", 0.5)),
    )


MADE_UP = Family(
    network=_network,
    classes=("MadeUpForCausalLM",),
    base="decoder.",
    head="to_logits",
    top={"embed": "tokens", "norm": "last_norm"},
    layer="blocks.{}.",
    block={
        "norm_1": "before_attention",
        "qkv": ("attention.query", "attention.key", "attention.value"),
        "out": "attention.output",
        "norm_2": "before_mlp",
        "gate": "mlp.gate",
        "up": "mlp.widen",
        "down": "mlp.narrow",
    },
    buffers=r"blocks\.\d+\.attention\.mask",
)
