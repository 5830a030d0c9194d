"""The rotary tables equal those of transformers for each kind of scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export.errors import CheckpointError
from issun.export.models import FAMILIES
from issun.export.models.fields import Fields
from issun.export.rotary import cos_sin

pytestmark = pytest.mark.parity

_LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 2048,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
_SCALINGS: list[dict[str, Any] | None] = [
    None,
    {"rope_type": "linear", "factor": 4.0},
    {"type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 4.0},
    _LLAMA3,
    _LLAMA3 | {"factor": 32.0, "high_freq_factor": 3.0},
    _YARN,
    {"rope_type": "yarn", "factor": 4.0},
    _YARN | {"beta_fast": 16, "beta_slow": 2},
    _YARN | {"attention_factor": 1.3},
    _YARN | {"mscale": 0.7, "mscale_all_dim": 1.2},
    _YARN | {"truncate": False},
]


@pytest.mark.parametrize("theta", [10_000.0, 1e6])
@pytest.mark.parametrize("scaling", _SCALINGS, ids=str)
def test_tables_are_those_of_transformers(scaling: dict[str, Any] | None, theta: float) -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    raw = _LLAMA | {"rope_scaling": scaling, "rope_theta": theta}
    rotary = FAMILIES["llama"].network(Fields(raw, Path("config.json"))).rotary
    assert rotary is not None
    positions = _LLAMA["max_position_embeddings"]
    cos, sin = cos_sin(rotary, 64, positions)  # type: ignore[arg-type]
    module = LlamaRotaryEmbedding(LlamaConfig(**raw))
    want_cos, want_sin = module(torch.zeros(1), torch.arange(positions)[None])
    assert np.abs(cos - want_cos[0, :, :32].numpy()).max() < 2e-6
    assert np.abs(sin - want_sin[0, :, :32].numpy()).max() < 2e-6


@pytest.mark.parametrize("kind", ["longrope", "su", "ntk", "mrope"])
def test_unknown_kinds_are_refused_by_name(kind: str) -> None:
    raw = _LLAMA | {"rope_scaling": {"rope_type": kind, "factor": 2.0}}
    with pytest.raises(CheckpointError, match=f"rope_scaling is .*{kind}"):
        FAMILIES["llama"].network(Fields(raw, Path("config.json")))
