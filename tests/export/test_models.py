"""The fields of each family's config.json: defaults, effects on the network, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.export import CheckpointError
from issun.export.checkpoint import open_checkpoint
from issun.export.config import parse_config
from issun.export.network import FULL, Network, Rotary

PATH = Path("folder/config.json")
SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
    "vocab_size": 512,
}
# The fields that make a valid config.json.
GOOD: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 96, "n_head": 6, "n_positions": 256, "vocab_size": 512},
    "gpt_neox": SIZES,
    "llama": SIZES,
    "mistral": SIZES | {"num_key_value_heads": 2},
    "qwen2": SIZES | {"num_key_value_heads": 2},
    "qwen3": SIZES | {"num_key_value_heads": 2},
}
ROTARY = ("gpt_neox", "llama", "mistral", "qwen2", "qwen3")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
MIXED = [LOCAL, GLOBAL, LOCAL]
ON = {"use_sliding_window": True}


def parse(kind: str, **changes: Any) -> Network:
    return parse_config({"model_type": kind, **GOOD[kind], **changes}, PATH)[1]


def refusal(kind: str, **changes: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        parse(kind, **changes)
    message = str(caught.value)
    assert message.startswith(f"{PATH}")
    assert "\n" not in message
    assert len(message) < 2000
    return message


# Defaults of transformers' config classes


def test_defaults_of_gpt_neox() -> None:
    assert parse("gpt_neox") == Network(
        family="gpt_neox",
        n_layer=3,
        n_embd=96,
        n_head=6,
        n_kv_head=6,
        head_dim=16,
        n_inner=176,
        n_positions=256,
        vocab_size=512,
        activation="gelu",
        epsilon=1e-5,
        tie_word_embeddings=False,
        scales=(0.25,) * 3,
        parallel=True,
        rotary=Rotary(dim=4, theta=10_000, trained=256),
    )


def test_defaults_of_llama() -> None:
    assert parse("llama") == Network(
        family="llama",
        n_layer=3,
        n_embd=96,
        n_head=6,
        n_kv_head=6,
        head_dim=16,
        n_inner=176,
        n_positions=256,
        vocab_size=512,
        activation="silu",
        epsilon=1e-6,
        tie_word_embeddings=False,
        scales=(0.25,) * 3,
        norm="rms",
        biases=frozenset(),
        gated=True,
        rotary=Rotary(dim=16, theta=10_000, trained=256),
    )


@pytest.mark.parametrize(
    ("kind", "heads", "positions"),
    [("llama", 64, 2048), ("mistral", 8, 131_072), ("qwen2", 32, 32_768), ("qwen3", 32, 32_768)],
)
def test_absent_fields_have_the_default_of_their_family(
    kind: str, heads: int, positions: int
) -> None:
    raw = {key: value for key, value in SIZES.items() if key != "max_position_embeddings"}
    raw |= {"model_type": kind, "num_attention_heads": 64, "hidden_size": 1024}
    network = parse_config(raw, PATH)[1]
    assert (network.n_kv_head, network.n_positions) == (heads, positions)
    assert network.head_dim == (128 if kind == "qwen3" else 16)
    assert network.windows == ((4096,) * 3 if kind == "mistral" else ())


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_null_means_no_grouped_heads_and_no_window(kind: str) -> None:
    network = parse(kind, num_key_value_heads=None, sliding_window=None)
    assert network.n_kv_head == 6
    assert network.windows == ()


# Fields that change the network


def test_biases() -> None:
    qkv = frozenset({"qkv"})
    assert parse("llama", attention_bias=True).biases == qkv | {"out"}
    assert parse("llama", mlp_bias=True).biases == {"gate", "up", "down"}
    assert parse("mistral").biases == frozenset()
    assert parse("qwen2").biases == qkv
    assert parse("qwen3").biases == frozenset()
    assert parse("qwen3", attention_bias=True).biases == qkv | {"out"}
    assert parse("gpt_neox", attention_bias=False).biases == {"up", "down"}


def test_only_qwen3_has_norms_of_heads() -> None:
    assert [kind for kind in GOOD if parse(kind).head_norms] == ["qwen3"]


def test_sequential_residual() -> None:
    assert not parse("gpt_neox", use_parallel_residual=False).parallel


@pytest.mark.parametrize(
    ("kind", "fields", "windows"),
    [
        ("mistral", {"sliding_window": 20}, (20, 20, 20)),
        ("mistral", {"sliding_window": 20, "layer_types": [LOCAL] * 3}, (20, 20, 20)),
        ("qwen2", {"sliding_window": 7}, ()),
        ("qwen2", {"sliding_window": 7, "use_sliding_window": False}, ()),
        ("qwen2", {"sliding_window": 7, "use_sliding_window": True}, ()),  # from layer 28 on
        (
            "qwen2",
            {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 1},
            (FULL, 7, 7),
        ),
        (
            "qwen3",
            {"sliding_window": 7, "use_sliding_window": True, "max_window_layers": 0},
            (7, 7, 7),
        ),
        (
            "qwen3",
            {"sliding_window": 7, "use_sliding_window": True, "layer_types": MIXED},
            (7, FULL, 7),
        ),
        ("qwen3", {"sliding_window": None, "use_sliding_window": True}, ()),
        ("llama", {"sliding_window": None, "layer_types": [GLOBAL] * 3}, ()),
    ],
)  # fmt: skip
def test_windows(kind: str, fields: dict[str, Any], windows: tuple[int, ...]) -> None:
    assert parse(kind, **fields).windows == windows


@pytest.mark.parametrize(
    ("kind", "fields", "key"),
    [
        ("llama", {"sliding_window": 20}, "sliding_window is 20"),
        ("llama", {"layer_types": [LOCAL] * 3}, "layer_types is ['sliding"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
        ("mistral", {"sliding_window": "20"}, "sliding_window is '20'"),
        ("mistral", {"layer_types": [GLOBAL] * 3}, "layer_types is ['full"),
        ("qwen2", {"use_sliding_window": True, "layer_types": [LOCAL] * 2}, "layer_types is"),
        ("qwen2", {"use_sliding_window": True, "layer_types": LOCAL}, "layer_types is 'sliding"),
        (
            "qwen2",
            {"use_sliding_window": True, "layer_types": ["chunked_attention"] * 3},
            "layer_types is ['chunked",
        ),
        ("qwen3", {"layer_types": [LOCAL] * 3}, "layer_types is ['sliding"),  # switched off
        ("qwen3", {"layer_types": [[LOCAL]] * 3}, "layer_types is [['sliding"),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": None, "layer_types": [LOCAL] * 3},
            "layer_types is ['sliding",
        ),
        ("qwen2", {"use_sliding_window": 1}, "use_sliding_window is 1"),
        ("qwen2", ON | {"max_window_layers": "1"}, "max_window_layers is '1'"),
        ("qwen2", ON | {"max_window_layers": -1}, "max_window_layers is -1"),
    ],
)  # fmt: skip
def test_windows_that_say_two_things_are_refused(
    kind: str, fields: dict[str, Any], key: str
) -> None:
    assert key in refusal(kind, **fields)


# Rotary positions


@pytest.mark.parametrize("kind", ROTARY)
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 2},
        LLAMA3,
        YARN,
        YARN | {"original_max_position_embeddings": 64, "beta_fast": 16, "truncate": False},
    ],
    ids=str,
)
def test_scaling(kind: str, scaling: dict[str, Any]) -> None:
    rotary = parse(kind, rope_scaling=scaling).rotary
    assert rotary is not None
    assert (rotary.kind, rotary.scaling) == (scaling["rope_type"], scaling)


def test_an_old_name_of_the_kind() -> None:
    rotary = parse("llama", rope_scaling={"type": "linear", "factor": 2.0}).rotary
    assert rotary is not None
    assert rotary.kind == "linear"
    both = {"type": "linear", "rope_type": "linear", "factor": 2.0}
    assert "type" in parse("llama", rope_scaling=both).rotary.scaling  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("share", "dim"), [(0.25, 4), (0.5, 8), (0.3, 4), (1.0, 16), (1, 16)]
)  # fmt: skip
def test_a_fraction_of_the_channels_rotates(share: float, dim: int) -> None:
    rotary = parse("gpt_neox", rotary_pct=share, rotary_emb_base=500).rotary
    assert rotary == Rotary(dim=dim, theta=500, trained=256)


@pytest.mark.parametrize(
    ("kind", "theta"), [("gpt_neox", "rotary_emb_base"), ("llama", "rope_theta")]
)
def test_fields_of_transformers_5(kind: str, theta: str) -> None:
    moved = {"rope_parameters": LLAMA3 | {"rope_theta": 5e5}}
    old = parse(kind, rope_scaling=LLAMA3, **{theta: 5e5}).rotary
    new = parse(kind, **moved).rotary
    assert old is not None
    assert new is not None
    assert (new.dim, new.theta, new.kind) == (old.dim, old.theta, old.kind)
    assert {k: v for k, v in new.scaling.items() if k != "rope_theta"} == old.scaling


def test_the_fraction_of_transformers_5() -> None:
    fields = {"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 0.5}
    rotary = parse("gpt_neox", rope_parameters=fields).rotary
    assert rotary is not None
    assert (rotary.dim, rotary.theta) == (8, 500)


@pytest.mark.parametrize("kind", ROTARY)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]},
        {"type": "su"},
        {"type": "mrope", "mrope_section": [2, 3, 3]},
        {"rope_type": "ntk", "factor": 2.0},
        {"rope_type": ["yarn"], "factor": 2.0},
        {"rope_type": "linear", "type": "yarn", "factor": 2.0},
        {"factor": 2.0},
        {"full_attention": {"rope_type": "default"}},
        "linear",
        [1],
    ],
    ids=str,
)
def test_other_kinds_are_refused_by_name(kind: str, key: str, scaling: object) -> None:
    assert f"{key} is {scaling!r}, which issun does not support" in refusal(kind, **{key: scaling})


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "linear"}, "factor is None"),
        ({"rope_type": "linear", "factor": 0}, "factor is 0"),
        ({"rope_type": "linear", "factor": "2"}, "factor is '2'"),
        ({"rope_type": "linear", "factor": float("nan")}, "factor is nan"),
        ({"rope_type": "dynamic"}, "factor is None"),
        ({"rope_type": "yarn", "factor": [4]}, "factor is [4]"),
        (YARN | {"beta_fast": "fast"}, "beta_fast is 'fast'"),
        (YARN | {"beta_slow": -1}, "beta_slow is -1"),
        (YARN | {"mscale": True}, "mscale is True"),
        (YARN | {"attention_factor": []}, "attention_factor is []"),
        (YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings is 0"),
        (YARN | {"truncate": "no"}, "truncate is 'no'"),
        (LLAMA3 | {"high_freq_factor": 1.0}, "rope_scaling is {'rope_type': 'llama3'"),
        (LLAMA3 | {"low_freq_factor": None}, "low_freq_factor is None"),
    ],
)
def test_damaged_scaling_is_named(scaling: dict[str, Any], message: str) -> None:
    assert message in refusal("llama", rope_scaling=scaling)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("llama", {"rope_theta": 0}, "rope_theta is 0"),
        ("llama", {"rope_theta": None}, "rope_theta is None"),
        ("llama", {"rope_theta": 1, "rope_scaling": YARN}, "rope_theta is 1"),
        ("llama", {"rope_theta": 5, "rope_parameters": {"rope_theta": 6}}, "rope_theta is 5"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("qwen3", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is"),
        ("llama", {"head_dim": 15}, "15 of the 15 channels of each head rotate; issun supports"),
        ("gpt_neox", {"rotary_pct": 0.2}, "3 of the 16 channels of each head rotate (rotary_pct"),
        ("gpt_neox", {"rotary_pct": 0.01}, "0 of the 16 channels"),
        ("gpt_neox", {"rotary_pct": 0}, "rotary_pct is 0"),
        ("gpt_neox", {"rotary_pct": 1.5}, "rotary_pct is 1.5"),
        ("gpt_neox", {"rotary_pct": "25%"}, "rotary_pct is '25%'"),
        ("gpt_neox", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("gpt_neox", {"rope_theta": 500_000}, "rope_theta is 500000"),  # transformers ignores it
        ("gpt_neox", {"rotary_emb_base": -1}, "rotary_emb_base is -1"),
        ("gpt_neox", {"head_dim": 32}, "head_dim is 32"),
    ],
)  # fmt: skip
def test_rotary_fields_that_cannot_be_exact_are_named(
    kind: str, fields: dict[str, Any], message: str
) -> None:
    assert message in refusal(kind, **fields)


# What is refused in every family


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ("compression_config", {"format": "int-quantized"}),
        ("auto_map", {"AutoModelForCausalLM": "modeling_other.OtherForCausalLM"}),
        ("trust_remote_code", True),
        ("num_local_experts", 8),
        ("num_experts", 60),
        ("n_routed_experts", 64),
        ("rope_interleaved", True),
        ("use_mrope", True),
        ("pruned_heads", {"0": [1]}),
        ("is_encoder_decoder", True),
        ("is_causal", False),
    ],
)
def test_what_changes_the_network_is_refused_by_name(kind: str, key: str, value: object) -> None:
    assert f"{key} is {value!r}, which issun does not support" in refusal(kind, **{key: value})


def test_fields_are_refused_before_any_other_file_is_opened(tmp_path: Path) -> None:
    raw = {"model_type": "llama", **SIZES, "quantization_config": {"bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"quantization_config is {'bits': 4}"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", GOOD)
def test_fields_that_change_no_logits_are_ignored(kind: str) -> None:
    harmless = {
        "attention_dropout": 0.1,
        "auto_map": None,
        "classifier_dropout": 0.5,
        "hidden_dropout": 0.1,
        "initializer_range": 0.5,
        "is_causal": True,
        "num_experts": 0,
        "pretraining_tp": 2,
        "pruned_heads": {},
        "quantization_config": None,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "use_mrope": False,
        "x": ["unknown"],
    }
    assert parse(kind, **harmless) == parse(kind)


@pytest.mark.parametrize(
    "kind", ["mixtral", "qwen2_moe", "qwen3_moe", "phi3", "deepseek_v3", "gpt_oss", "LLAMA"]
)
def test_other_families_are_refused_by_name(kind: str) -> None:
    with pytest.raises(CheckpointError, match=rf"the architecture is {kind} \(OtherForCausalLM\)"):
        parse_config({"model_type": kind, "architectures": ["OtherForCausalLM"]}, PATH)


@pytest.mark.parametrize("kind", [None, 5, ["llama"], {"llama": 1}, "llama\nmistral"])
def test_a_model_type_may_have_any_type(kind: object) -> None:
    with pytest.raises(CheckpointError, match=r"the architecture is [^\n]+; issun supports"):
        parse_config({"model_type": kind, "architectures": "LlamaForCausalLM"}, PATH)


def test_a_value_of_any_length_is_shown_in_one_line() -> None:
    refusal("llama", quantization_config={str(i): i for i in range(10_000)})
    refusal("llama", vocab_size=list(range(10_000)))


# Damaged and hostile sizes

COUNTS = [
    *(("gpt_neox", key) for key in SIZES),
    *(("llama", key) for key in (*SIZES, "num_key_value_heads", "head_dim")),
]


@pytest.mark.parametrize(("kind", "key"), COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "12", True, [1], 10**8, 10**400])
def test_counts_are_whole_numbers(kind: str, key: str, value: object) -> None:
    assert f"{key} is {value!r}, it must be an integer from 1 to " in refusal(kind, **{key: value})


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("gpt_neox", {"num_attention_heads": 7}, "num_attention_heads is 7"),
        ("llama", {"num_key_value_heads": 4}, "num_key_value_heads is 4"),
        ("llama", {"num_attention_heads": 128}, "head_dim is 0"),
        ("llama", {"hidden_act": "gelu_10"}, "'gelu_10' is not supported"),
        ("llama", {"hidden_act": ["silu"]}, "is not supported; supported: gelu,"),
        ("llama", {"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'"),
        ("gpt_neox", {"layer_norm_eps": 0}, "layer_norm_eps is 0"),
        ("gpt_neox", {"use_parallel_residual": "false"}, "use_parallel_residual is 'false'"),
        ("llama", {"tie_word_embeddings": 0}, "tie_word_embeddings is 0"),
        ("llama", {"attention_bias": None}, "attention_bias is None"),
    ],
)
def test_damaged_fields_are_named(kind: str, fields: dict[str, Any], message: str) -> None:
    assert message in refusal(kind, **fields)


FIELDS = [
    *SIZES,
    *("head_dim", "hidden_act", "layer_types", "max_window_layers", "num_key_value_heads"),
    *("partial_rotary_factor", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta"),
    *("rotary_emb_base", "rotary_pct", "sliding_window", "use_sliding_window", "attention_bias"),
    *("n_head", "n_embd", "model_type", "architectures", "auto_map", "is_causal"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([LOCAL, GLOBAL, "yarn", "llama3", "linear", "default"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*YARN, *LLAMA3, "type", "rope_theta"]), inner, max_size=6),
)  # fmt: skip


@given(st.sampled_from([*GOOD]), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
def test_any_values_give_a_network_or_one_line(kind: str, fields: dict[str, Any]) -> None:
    try:
        network = parse(kind, **fields)
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert network.n_head % network.n_kv_head == 0
