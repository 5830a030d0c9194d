"""The weight files of every family: wrapped names, buffers, heads, and reports of all faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.benchmarks.small_tokenizers import SPECIAL
from issun.export import CheckpointError
from issun.export.canonical import expected_shapes
from issun.export.checkpoint import open_checkpoint
from issun.export.config import parse_config
from tests.checkpoints import Array, save_weights

Weights = dict[str, Array]
Rename = Callable[[str], str]

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
    "vocab_size": 512,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_neox": SIZES,
    "llama": SIZES | {"num_key_value_heads": 1},
    "mistral": SIZES | {"num_key_value_heads": 1},
    "qwen2": SIZES | {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": SIZES | {"num_key_value_heads": 1, "head_dim": 24},
}
HEADS = {"gpt_neox": "embed_out.weight"}


def weights_of(kind: str) -> Weights:
    """Random weights by the names of the family's class."""
    family, network = parse_config({"model_type": kind} | CONFIGS[kind], Path("config.json"))
    random = np.random.RandomState(0)
    return {
        name if name == family.head_weight else family.base + name: random.randn(*shape).astype(
            np.float32
        )
        for name, shape in expected_shapes(family, network).items()
    }


@pytest.fixture
def make(spiece: Path, tmp_path: Path) -> Callable[..., Path]:
    """`make(kind, weights)`: a checkpoint's folder."""

    def made(kind: str, weights: Weights, **changes: Any) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        config = {"model_type": kind} | CONFIGS[kind] | changes
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(SPECIAL), encoding="utf-8")
        shutil.copyfile(spiece, folder / "spiece.model")
        save_weights(folder, weights)
        return folder

    return made


def opened(folder: Path) -> tuple[Weights, list[str]]:
    """The tensors that an export uses, by canonical names, and its notices."""
    notices: list[str] = []
    tensors = open_checkpoint(folder, notify=lambda t, **v: notices.append(t.format(**v))).tensors
    return {name: tensor.read() for name, tensor in tensors.items()}, notices


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(found: tuple[Weights, list[str]], expected: tuple[Weights, list[str]]) -> None:
    assert found[1] == expected[1] == []
    assert found[0].keys() == expected[0].keys()
    assert all(np.array_equal(found[0][name], expected[0][name]) for name in expected[0])


WRAPPED: dict[str, Rename] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DDP": lambda name: f"module.{name}",
    "Lightning": lambda name: f"model.{name}",
    "peft, merged": lambda name: f"base_model.model.{name}",
    "FSDP of blocks": lambda name: name.replace("layers.1.", "layers.1._fsdp_wrapped_module."),
    "a part of another model": lambda name: f"language_model.{name}",
    "no base model": lambda name: name.removeprefix("model.").removeprefix("gpt_neox."),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("how", WRAPPED)
def test_names_with_wrapper_prefixes(make: Callable[..., Path], kind: str, how: str) -> None:
    weights = weights_of(kind)
    expected = opened(make(kind, weights))
    renamed = {WRAPPED[how](name): array for name, array in weights.items()}
    assert_same(opened(make(kind, renamed)), expected)


@pytest.mark.parametrize(
    ("kind", "buffers"),
    [
        ("gpt_neox", ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"]),
        *((kind, ["self_attn.rotary_emb.inv_freq"]) for kind in CONFIGS if kind != "gpt_neox"),
    ],
)
def test_buffers_are_skipped(make: Callable[..., Path], kind: str, buffers: list[str]) -> None:
    weights = weights_of(kind)
    expected = opened(make(kind, weights))
    base = "gpt_neox." if kind == "gpt_neox" else "model."
    for name in buffers:
        weights[f"{base}layers.1.{name}"] = np.ones((4, 4), np.float32)
    assert_same(opened(make(kind, weights)), expected)


@pytest.mark.parametrize("kind", CONFIGS)
def test_heads(make: Callable[..., Path], kind: str) -> None:
    weights, head = weights_of(kind), HEADS.get(kind, "lm_head.weight")
    embedding = "gpt_neox.embed_in.weight" if kind == "gpt_neox" else "model.embed_tokens.weight"
    weights[head] = weights[embedding] + 1
    untied, _ = opened(make(kind, weights, tie_word_embeddings=False))
    assert np.array_equal(untied["head.weight"], weights[head])
    tied, notices = opened(make(kind, weights, tie_word_embeddings=True))
    assert "head.weight" not in tied
    assert f"{head} differs from {embedding.partition('.')[2]}" in notices[0]
    del weights[head]
    assert opened(make(kind, weights, tie_word_embeddings=True))[1] == []
    assert f"{head} is missing" in refusal(make(kind, weights, tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("kind", "changes", "fault"),
    [
        ("llama", {"attention_bias": True}, "layers.0.self_attn.q_proj.bias is missing"),
        ("llama", {"mlp_bias": True}, "layers.0.mlp.gate_proj.bias is missing"),
        ("llama", {"num_key_value_heads": 3}, "k_proj.weight has shape [16, 48], not [48, 48]"),
        ("llama", {"num_hidden_layers": 3}, "layers.2.input_layernorm.weight is missing"),
        ("llama", {"num_hidden_layers": 1}, "layers.1.input_layernorm.weight is unknown"),
        ("llama", {"model_type": "qwen2"}, "layers.0.self_attn.q_proj.bias is missing"),
        ("llama", {"model_type": "qwen3", "head_dim": 16}, "layers.0.self_attn.q_norm.weight is m"),
        ("qwen2", {"model_type": "llama"}, "layers.0.self_attn.q_proj.bias is unknown"),
        ("qwen3", {"model_type": "llama"}, "layers.0.self_attn.q_norm.weight is unknown"),
        ("qwen3", {"head_dim": 16}, "q_norm.weight has shape [24], not [16]"),
        ("gpt_neox", {"attention_bias": False}, "query_key_value.bias is unknown"),
        ("gpt_neox", {"vocab_size": 600}, "embed_in.weight has shape [512, 48], not [600, 48]"),
    ],
)
def test_weights_that_do_not_match_the_config_are_named(
    make: Callable[..., Path], kind: str, changes: dict[str, Any], fault: str
) -> None:
    assert fault in refusal(make(kind, weights_of(kind), **changes))


@pytest.mark.parametrize("name", ["model.layers.0.block_sparse_moe.gate.weight",
                                  "model.layers.1.self_attn.sinks",
                                  "model.layers.0.mlp.gate_proj.qweight"])  # fmt: skip
def test_tensors_of_other_networks_are_named(make: Callable[..., Path], name: str) -> None:
    weights = weights_of("mistral") | {name: np.ones((4, 48), np.float32)}
    assert f"{name.removeprefix('model.')} is unknown" in refusal(make("mistral", weights))


def test_a_part_that_is_stored_in_several_tensors_names_them_all(
    make: Callable[..., Path],
) -> None:
    tensors = open_checkpoint(make("llama", weights_of("llama"))).tensors
    names = tensors["h.1.qkv.weight"].name
    assert names == ", ".join(f"model.layers.1.self_attn.{part}_proj.weight" for part in "qkv")


# The layout of the graph


def test_queries_keys_and_values_of_llama_lie_side_by_side(make: Callable[..., Path]) -> None:
    weights = weights_of("llama")
    found, _ = opened(make("llama", weights))
    at = "model.layers.1.self_attn"
    parts = [weights[f"{at}.{part}_proj.weight"] for part in "qkv"]
    # Heads of 16 channels stay as they are: channel j already rotates with j + 8.
    np.testing.assert_array_equal(found["h.1.qkv.weight"], np.concatenate(parts).T)
    np.testing.assert_array_equal(found["h.1.out.weight"], weights[f"{at}.o_proj.weight"].T)


def test_queries_keys_and_values_of_gpt_neox_are_sorted(make: Callable[..., Path]) -> None:
    weights = weights_of("gpt_neox")
    found, _ = opened(make("gpt_neox", weights))
    stored = weights["gpt_neox.layers.0.attention.query_key_value.bias"].reshape(3, 3, 16)
    # (head, query or key or value, channel). 4 of 16 channels rotate: 0 with 2, 1 with 3. In the
    # graph channel j rotates with j + 8, so that these lie at 0, 1, 8 and 9.
    order = [0, 1, 4, 5, 6, 7, 8, 9, 2, 3, 10, 11, 12, 13, 14, 15]
    query, key, value = (stored[:, part] for part in range(3))
    expected = [query[:, order].ravel(), key[:, order].ravel(), value.ravel()]
    np.testing.assert_array_equal(found["h.0.qkv.bias"], np.concatenate(expected))


def test_padded_heads_of_qwen3(make: Callable[..., Path]) -> None:
    """Heads of 24 channels have 32 in the graph: 12 and 12 that rotate, each with 4 of padding."""
    weights = weights_of("qwen3")
    found, _ = opened(make("qwen3", weights))
    assert found["h.0.qkv.weight"].shape == (48, (3 + 1 + 1) * 32)
    at = "model.layers.0.self_attn"
    query = found["h.0.qkv.weight"][:, 32:64]  # of the second head
    stored = weights[f"{at}.q_proj.weight"][24:48].T
    np.testing.assert_array_equal(query[:, :12], stored[:, :12])
    np.testing.assert_array_equal(query[:, 16:28], stored[:, 12:])
    assert not query[:, 12:16].any()
    assert not query[:, 28:].any()
    value = found["h.0.qkv.weight"][:, -32:]
    np.testing.assert_array_equal(value[:, :24], weights[f"{at}.v_proj.weight"].T)
    assert not value[:, 24:].any()
    gain = np.zeros(32, np.float32)
    gain[[*range(12), *range(16, 28)]] = weights[f"{at}.q_norm.weight"] * np.float32(0.75**0.5)
    np.testing.assert_allclose(found["h.0.q_norm.weight"], gain, rtol=1e-6)
    out = found["h.0.out.weight"].reshape(3, 32, 48)
    assert not out[:, 24:].any()
