"""LoRA adapters that PEFT saved: merged logits, and updates in the graph's layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from issun.export.checkpoint import AdapterFolder, Checkpoint, open_checkpoint
from issun.export.low_rank import canonical_low_rank
from issun.export.weights import Array
from tests.parity.checkpoints import make, save
from tests.parity.test_families import decoder_of, whole

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
NUM_IDS = 40
Fields = dict[str, Any]

# The name of a base model of VARIANTS, and the fields of LoraConfig.
CASES: dict[str, tuple[str, Fields]] = {
    "gpt2": ("gpt2", {"target_modules": ["c_attn"]}),
    "gpt2-names": ("gpt2", {"target_modules": ["attn.c_proj", "c_fc"]}),  # not mlp.c_proj
    "gpt2-regex": ("gpt2", {"target_modules": r".*\.h\.[02]\.(attn\.c_attn|mlp\.c_proj)"}),
    "gpt2-all-linear": ("gpt2-untied-gelu", {"target_modules": "all-linear"}),
    "gpt2-rslora": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "use_rslora": True}),
    "gpt2-ranks": ("gpt2", {
        "target_modules": ["c_attn", "c_fc"], "rank_pattern": {"c_fc": 3, r"h.1.attn.c_attn": 7},
        "alpha_pattern": {r"^transformer.h.0.*c_attn": 30}}),
    "gpt2-layers": ("gpt2", {"target_modules": ["c_attn"], "layers_to_transform": [0, 2]}),
    "gpt2-layer": ("gpt2", {
        "target_modules": ["c_fc"], "layers_to_transform": 1, "layers_pattern": "h"}),
    "gpt2-excluded": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "exclude_modules": ["c_fc"]}),
    "gpt2-excluded-regex": ("gpt2", {
        "target_modules": "all-linear", "exclude_modules": r".*h\.1\..*"}),
    "gpt2-bias-all": ("gpt2", {"target_modules": ["c_attn"], "bias": "all"}),
    "gpt2-bias-lora": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "bias": "lora_only"}),
    "gpt2-norms": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["ln_1", "ln_f"]}),
    "gpt2-head": ("gpt2-untied-gelu", {
        "target_modules": ["c_attn"], "modules_to_save": ["lm_head"]}),
    "gpt2-embedding": ("gpt2-untied-gelu", {"target_modules": ["wte", "wpe", "c_attn"]}),
    "gpt2-head-update": ("gpt2-untied-gelu", {"target_modules": ["lm_head"]}),
    "gpt2-tied-embedding": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["wte"]}),
    "gpt2-tied-both": ("gpt2", {
        "target_modules": ["c_attn"], "modules_to_save": ["wte"], "ensure_weight_tying": True}),
    "gpt2-tied-head": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]}),
    "gpt2-tied-embedding-update": ("gpt2", {"target_modules": ["wte", "c_attn"]}),
    "gpt2-tied-head-update": ("gpt2", {"target_modules": ["lm_head", "c_attn"]}),
    "neox": ("neox-parallel-quarter", {"target_modules": ["query_key_value", "dense"]}),
    "neox-padded": ("neox-head-20-tied", {"target_modules": "all-linear"}),
    "neox-no-bias": ("neox-no-attention-bias", {"target_modules": "all-linear", "bias": "all"}),
    "llama": ("llama", {"target_modules": ["q_proj", "v_proj"]}),
    "llama-all-linear": ("llama-head-24-one-kv-head", {"target_modules": "all-linear"}),
    "llama-ranks": ("llama", {
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "use_rslora": True,
        "rank_pattern": {"k_proj": 2, "v_proj": 6}, "alpha_pattern": {"q_proj": 3}}),
    "llama-mlp": ("llama-head-20-tied", {
        "target_modules": ["k_proj", "down_proj"], "modules_to_save": ["mlp.up_proj", "q_proj"]}),
    "llama-embeddings": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "llama-biases": ("llama-biases", {"target_modules": ["gate_proj", "q_proj"], "bias": "all"}),
    "mistral": ("mistral-window-2-head-24", {"target_modules": "all-linear"}),
    "qwen2": ("qwen2-window-tied", {"target_modules": "all-linear", "bias": "lora_only"}),
    "qwen3": ("qwen3-head-24-bias", {
        "target_modules": "all-linear", "modules_to_save": ["q_norm", "k_norm"]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(
    ref: ModuleType, spiece: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`base(name)`: the checkpoint of a variant."""
    pytest.importorskip("peft", reason='peft is not installed: pip install "issun[dev]"')

    @cache
    def find(name: str) -> Path:
        return save(make(name), tmp_path_factory.mktemp("bases") / name, spiece)

    return find


def adapted(model: Any, folder: Path, seed: int = 0, **fields: Any) -> Any:
    """The model with an adapter of random values, which is saved in `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | fields)
    found = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for values in found.parameters():
            if values.requires_grad:
                values.add_(torch.randn_like(values) * 0.1)
    found.save_pretrained(folder)
    return found.eval()


def ids() -> list[int]:
    found: list[int] = np.random.RandomState(1).randint(0, 512, NUM_IDS).tolist()
    return found


def logits_of(checkpoint: Checkpoint, folder: Path) -> Array:
    folder.mkdir(exist_ok=True)
    return whole(decoder_of(checkpoint, folder), ids())


@pytest.mark.parametrize("name", CASES)
def test_merged_logits_equal_those_of_peft(
    ref: ModuleType, base: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    variant, fields = CASES[name]
    model = adapted(make(variant), tmp_path / "adapter", **fields)
    expected = ref.logits_of(model, ids())
    original = ref.logits_of(make(variant), ids())
    assert np.abs(expected - original).max() > 100 * TOLERANCE  # the adapter matters
    adapter = AdapterFolder(tmp_path / "adapter", "adapter")
    checkpoint = open_checkpoint(base(variant), adapters=[adapter])
    found = logits_of(checkpoint, tmp_path / "graph")
    assert np.abs(found - expected).max() < TOLERANCE
    if "tied" not in variant and not (variant == "gpt2" and "tied" in name):
        merged = ref.logits_of(model.merge_and_unload(), ids())
        assert np.abs(found - merged).max() < TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_updates_in_the_layout_of_the_graph_add_up_to_the_merged_weights(
    base: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    variant, fields = CASES[name]
    adapted(make(variant), tmp_path / "adapter", **fields)
    plain = open_checkpoint(base(variant))
    adapter = AdapterFolder(tmp_path / "adapter", "adapter")
    merged = open_checkpoint(base(variant), adapters=[adapter])
    found = merged.merged[0].adapter
    updates = canonical_low_rank(found.pairs, plain.family, plain.network)
    assert updates
    for layer, update in updates.items():
        if layer in ("embed", "positions", "head"):
            continue
        weight = f"{layer}.weight"
        difference = merged.tensors[weight].read() - plain.tensors[weight].read()
        if not found.replaced:
            np.testing.assert_allclose((update.b @ update.a).T, difference, atol=1e-5)
