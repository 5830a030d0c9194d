"""Loads a validated checkpoint as a transformers model, for Optimum and fine-tuning."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from issun.export.checkpoint import Checkpoint
from issun.export.config import read_json
from issun.export.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_torch(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model in float32, built from the same tensors that an export uses.

    `from_pretrained` on the folder would initialize renamed tensors randomly. Raises
    CheckpointError for a config.json that transformers 4.57 misreads.
    """
    import torch  # noqa: PLC0415
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING  # noqa: PLC0415

    raw, network = read_json(checkpoint.folder / "config.json"), checkpoint.network
    if raw.get("rope_parameters"):
        raise CheckpointError(
            "{folder}: config.json was written by transformers 5, and 4.57 ignores its "
            "rope_parameters: write them as rope_theta and rope_scaling.",
            folder=checkpoint.folder,
        )
    config = CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    read = {name: torch.from_numpy(t.read()) for name, t in checkpoint.stored.items()}
    state = {checkpoint.family.full_name(name): tensor for name, tensor in read.items()}
    state.setdefault(checkpoint.family.head_weight, read[checkpoint.family.embedding_weight])
    # The default, sdpa, ignores the config fields that change GPT-2's attention scale.
    plain = all(math.isclose(scale, network.head_dim**-0.5) for scale in network.scales)
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=torch.float32,
        attn_implementation="sdpa" if plain else "eager",
    )
    return model
