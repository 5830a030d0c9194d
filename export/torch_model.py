"""Loads a validated checkpoint as a transformers model, for Optimum and fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from issun.export.checkpoint import Checkpoint
from issun.export.config import read_json
from issun.export.tensors import EMBEDDING, HEAD

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


def load_torch(checkpoint: Checkpoint) -> GPT2LMHeadModel:
    """The model in float32, built from the same tensors that an export uses.

    `from_pretrained` on the folder would initialize renamed tensors randomly.
    """
    import torch  # noqa: PLC0415
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

    read = {name: torch.from_numpy(t.read()) for name, t in checkpoint.tensors.items()}
    state = {name if name == HEAD else f"transformer.{name}": t for name, t in read.items()}
    state.setdefault(HEAD, read[EMBEDDING])
    config = checkpoint.config
    # The default, sdpa, ignores the config fields that change the attention scale.
    plain = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(
        None,
        config=GPT2Config.from_dict(read_json(checkpoint.folder / "config.json")),
        state_dict=state,
        dtype=torch.float32,
        attn_implementation="sdpa" if plain else "eager",
    )
    return model
