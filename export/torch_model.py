"""Loads a validated GPT-2 checkpoint as a transformers model, for Optimum and fine-tuning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from issun.export.checkpoint import Checkpoint
from issun.export.config import read_json

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


def load_torch(checkpoint: Checkpoint) -> GPT2LMHeadModel:
    """The model in float32, built from the same tensors that an export uses.

    Both callers refuse other families. `from_pretrained` on the folder would initialize renamed
    tensors randomly.
    """
    import torch  # noqa: PLC0415
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

    family, network = checkpoint.family, checkpoint.network
    read = {name: torch.from_numpy(t.read()) for name, t in checkpoint.stored.items()}
    head = family.head_weight
    state = {name if name == head else f"{family.base}{name}": t for name, t in read.items()}
    state.setdefault(head, read[family.embedding_weight])
    # The default, sdpa, ignores the config fields that change the attention scale.
    plain = all(scale == 1 / math.sqrt(network.head_dim) for scale in network.scales)
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(
        None,
        config=GPT2Config.from_dict(read_json(checkpoint.folder / "config.json")),
        state_dict=state,
        dtype=torch.float32,
        attn_implementation="sdpa" if plain else "eager",
    )
    return model
