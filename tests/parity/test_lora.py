"""LoRA adapters that PEFT saved: merged logits, and updates in the graph's layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from issun.benchmarks.divergence import Logits, mean_kl, score_windows
from issun.export import AdapterSource, ExportOptions, export
from issun.export.checkpoint import AdapterFolder, Checkpoint, open_checkpoint
from issun.export.kinds import Uniform
from issun.export.low_rank import canonical_low_rank
from issun.export.weights import Array
from issun.runtime import Model
from tests.parity.checkpoints import make, save
from tests.parity.test_families import decoder_of, whole

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
NUM_IDS = 40
PRECISIONS: tuple[Uniform, ...] = ("float32", "int8", "int4")
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


def test_several_adapters_with_weights_equal_those_that_peft_adds_up(
    ref: ModuleType, base: Callable[[str], Path], tmp_path: Path
) -> None:
    from peft import PeftModel

    for seed, name in enumerate(("one", "two")):
        adapted(make("llama"), tmp_path / name, seed, target_modules=["q_proj", "o_proj"])
    model = PeftModel.from_pretrained(make("llama"), tmp_path / "one", adapter_name="one")
    model.load_adapter(tmp_path / "two", "two")
    model.add_weighted_adapter(["one", "two"], [0.5, -2.0], "sum", combination_type="cat")
    model.set_adapter("sum")
    expected = ref.logits_of(model, ids())
    checkpoint = open_checkpoint(
        base("llama"),
        adapters=[
            AdapterFolder(tmp_path / name, name, weight)
            for name, weight in (("one", 0.5), ("two", -2.0))
        ],
    )
    assert np.abs(logits_of(checkpoint, tmp_path / "graph") - expected).max() < TOLERANCE


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_a_vocabulary_that_has_grown(
    ref: ModuleType, base: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    model = make(variant)
    model.resize_token_embeddings(512 + 8, mean_resizing=False)
    model = adapted(model, tmp_path / "adapter", target_modules="all-linear")
    # With `True`, or a base model's folder, PEFT saves the embeddings that have changed.
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    checkpoint = open_checkpoint(
        base(variant), adapters=[AdapterFolder(tmp_path / "adapter", "adapter")]
    )
    assert checkpoint.network.vocab_size == 520
    assert checkpoint.network.tie_word_embeddings == (variant == "gpt2")
    expected = ref.logits_of(model, [*ids(), 519])
    folder = tmp_path / "graph"
    folder.mkdir()
    found = whole(decoder_of(checkpoint, folder), [*ids(), 519])
    assert np.abs(found - expected).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ja-small", "tiny-llama"])
def test_quantized_merged_models_are_as_close_to_float32_as_the_base(
    ref: ModuleType, shared: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("peft", reason='peft is not installed: pip install "issun[dev]"')
    source = shared / "checkpoints" / name
    lines = (shared / "data" / "text" / "novel-train.txt").read_text(encoding="utf-8")
    tokens = open_checkpoint(source).tokenizer.open().encode(lines[:20_000])
    expected = trained(source, tmp_path / "adapter", tokens)
    text = (shared / "data" / "text" / "novel-eval.txt").read_text(encoding="utf-8")[:3000]
    adapters = (AdapterSource(tmp_path / "adapter"),)
    found: dict[tuple[bool, str], Logits] = {}
    for merges in (False, True):
        for precision in PRECISIONS:
            folder = tmp_path / f"{precision}-{merges}"
            options = ExportOptions(precision=precision, adapters=adapters if merges else ())
            export(source, folder, options)
            with Model.load(folder, keep_packed=False) as model:
                ids = model.tokenizer.encode(text)
                found[merges, precision] = score_windows(model, ids)
    first = ids[:128]
    assert np.abs(found[True, "float32"][:128] - ref.logits_of(expected, first)).max() < TOLERANCE
    assert mean_kl(found[False, "float32"], found[True, "float32"]) > 0.01  # it has learnt
    for precision in ("int8", "int4"):
        base, merged = (mean_kl(found[m, "float32"], found[m, precision]) for m in (False, True))
        print(f"{name} {precision}: base {base:.6f}, merged {merged:.6f}")
        assert merged <= 1.2 * base


def trained(source: Path, folder: Path, tokens: list[int], steps: int = 20) -> Any:
    """The model after some steps of training its adapter, which is saved in `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(0)
    found = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([p for p in found.parameters() if p.requires_grad], lr=2e-3)
    for step in range(steps):
        batch = torch.tensor(tokens[step * 256 :][:256]).reshape(2, 128)
        found(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found.save_pretrained(folder)
    return found.eval()
