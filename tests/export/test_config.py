"""config.json: supported fields, and errors that name the field."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from issun.export import CheckpointError
from issun.export.config import parse_config, read_config, read_json
from issun.export.network import ACTIVATIONS, Network

GOOD: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_layer": 2,
    "n_embd": 48,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": 100,
}
PATH = Path("folder/config.json")


def parse(**changes: Any) -> Network:
    return parse_config({**GOOD, **changes}, PATH)[1]


def refusal(**changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert message.startswith(f"{PATH}")
    assert "\n" not in message
    return message


def test_defaults_equal_those_of_transformers() -> None:
    network = parse()
    assert network == Network(
        family="gpt2",
        n_layer=2,
        n_embd=48,
        n_head=4,
        n_kv_head=4,
        head_dim=12,
        n_inner=192,
        n_positions=64,
        vocab_size=100,
        activation="gelu_new",
        epsilon=1e-5,
        tie_word_embeddings=True,
        scales=(1 / math.sqrt(12),) * 2,
        learned_positions=True,
    )
    assert parse(n_inner=None) == network


def test_explicit_values_are_used() -> None:
    network = parse(n_inner=7, layer_norm_epsilon=1e-3, tie_word_embeddings=False)
    assert (network.n_inner, network.epsilon, network.tie_word_embeddings) == (7, 1e-3, False)


@pytest.mark.parametrize(
    ("n_head", "width", "padded"), [(6, 8, 8), (4, 12, 16), (2, 24, 24), (16, 3, 8)]
)
def test_heads_are_padded_to_a_multiple_of_8(n_head: int, width: int, padded: int) -> None:
    config = parse(n_head=n_head)
    assert (config.head_dim, config.kv_head_dim) == (width, padded)


def test_attention_scale_uses_the_unpadded_head_width() -> None:
    width = 1 / math.sqrt(12)
    assert parse().scales == (width, width)
    assert parse(scale_attn_weights=False).scales == (1, 1)
    by_layer = parse(scale_attn_by_inverse_layer_idx=True, n_layer=4)
    assert by_layer.scales == pytest.approx((width, width / 2, width / 3, width / 4))
    neither = parse(scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True)
    assert neither.scales == (1, 0.5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_known_activations(name: str) -> None:
    assert parse(activation_function=name).activation == name


def test_an_unknown_activation_lists_the_known_ones() -> None:
    message = refusal(activation_function="tanh")
    assert (
        "'tanh' is not supported; supported: gelu, gelu_fast, gelu_new, gelu_python, "
        "gelu_pytorch_tanh, relu, silu, swish." in message
    )


@pytest.mark.parametrize("key", ["n_layer", "n_embd", "n_head", "n_positions", "vocab_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "12", None, True, [1]])
def test_counts_are_whole_numbers(key: str, value: object) -> None:
    assert f"{key} is {value!r}, it must be an integer from 1 to " in refusal(**{key: value})


def test_n_inner_is_a_whole_number() -> None:
    assert "n_inner is 0" in refusal(n_inner=0)


def test_heads_divide_the_width() -> None:
    assert "n_embd 48 is not a multiple of n_head 5" in refusal(n_head=5)


@pytest.mark.parametrize("value", ["small", [], {}, 0, -1.0, float("nan"), 10**400, 2.0])
def test_epsilon_is_a_small_number(value: object) -> None:
    assert "must be a number between 0 and 1" in refusal(layer_norm_epsilon=value)


@pytest.mark.parametrize("value", ["false", 1, None])
@pytest.mark.parametrize("key", ["scale_attn_weights", "tie_word_embeddings"])
def test_flags_are_true_or_false(key: str, value: object) -> None:
    assert f"{key} is {value!r}, it must be true or false" in refusal(**{key: value})


def test_sizes_are_bounded() -> None:
    assert "n_layer is 3000000" in refusal(n_layer=3_000_000)


def test_architectures_may_have_any_type() -> None:
    assert "(5)" in refusal(architectures=5)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"model_type": "gpt_neox"}, "gpt_neox (GPT2LMHeadModel)"),
        ({"model_type": "gpt_bigcode"}, "gpt_bigcode (GPT2LMHeadModel)"),
        ({"model_type": None}, "None"),
        (
            {"architectures": ["GPT2ForSequenceClassification"]},
            "gpt2 (GPT2ForSequenceClassification)",
        ),
        (
            {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]},
            "mixtral (MixtralForCausalLM)",
        ),
    ],
)
def test_another_architecture_is_named(changes: dict[str, Any], found: str) -> None:
    message = refusal(**changes)
    assert f"the architecture is {found}" in message
    assert (
        "issun supports GPT2LMHeadModel, GPT2DoubleHeadsModel, GPT2Model, GPTNeoXForCausalLM, "
        in message
    )


def test_architectures_may_be_missing() -> None:
    assert parse(architectures=None) == parse()


def test_cross_attention_is_refused() -> None:
    assert "add_cross_attention" in refusal(add_cross_attention=True)
    assert parse(add_cross_attention=False) == parse()


@pytest.mark.parametrize("alias", [("hidden_size", 96), ("num_attention_heads", 6)])
def test_names_that_transformers_prefers_must_agree(alias: tuple[str, int]) -> None:
    key, value = alias
    assert f"{key} is {value}, which issun does not support" in refusal(**{key: value})
    assert parse(hidden_size=48, num_attention_heads=4, num_hidden_layers=2) == parse()


def test_read_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no config\.json"):
        read_config(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_config(tmp_path)[1] == parse()
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_damaged_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        read_config(tmp_path)


def test_files_that_never_end_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    with path.open("wb") as file:
        file.truncate(8 << 30)  # sparse
    with pytest.raises(CheckpointError, match=r"cannot be read: .*large"):
        read_json(path)
    if hasattr(os, "mkfifo"):
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(CheckpointError, match="a pipe or a device"):
            read_json(path)
