"""LoRA adapters: what is read and refused, and numbers of a merge by hand."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export import AdapterSource, CheckpointError, ExportOptions, export
from issun.export.checkpoint import AdapterFolder, Checkpoint, open_checkpoint
from issun.export.lora_config import LoRAConfig
from issun.export.weights import Tensor
from issun.runtime import ParameterError
from issun.runtime.manifest import MergedAdapter, read_manifest

Array = NDArray[np.float32]
NAME, WIDTH, ROWS = "head-17", 119, 500  # of the checkpoint in SHAPES, which is tied
PREFIX = "base_model.model.transformer."
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["attn.c_proj"]}


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def factors(seed: int = 0, *, layers: tuple[int, ...] = (0, 1), rank: int = 2) -> dict[str, Array]:
    """A and B of `attn.c_proj` in every layer."""
    found = {}
    for layer in layers:
        module = f"{PREFIX}h.{layer}.attn.c_proj"
        found[f"{module}.lora_A.weight"] = drawn(rank, WIDTH, seed=seed + layer)
        found[f"{module}.lora_B.weight"] = drawn(WIDTH, rank, seed=seed + layer + 50)
    return found


def write_adapter(
    folder: Path, tensors: dict[str, Array] | None = None, **config: Any
) -> AdapterFolder:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    save_file(factors() if tensors is None else tensors, folder / "adapter_model.safetensors")
    return AdapterFolder(folder, folder.name)


@pytest.fixture
def merged(checkpoint: Callable[[str], Path]) -> Callable[..., Checkpoint]:
    """`merged(*adapters)`: the checkpoint with adapters."""
    return lambda *adapters: open_checkpoint(checkpoint(NAME), adapters=adapters)


@pytest.fixture
def refusal(merged: Callable[..., Checkpoint], tmp_path: Path) -> Callable[..., str]:
    """`refusal(tensors, **config)`: why an adapter is refused."""

    def refuse(tensors: dict[str, Array] | None = None, **config: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            merged(write_adapter(tmp_path / "lora", tensors, **config))
        return str(caught.value)

    return refuse


# Merging


class Known(Tensor):
    def __init__(self, values: Array) -> None:
        super().__init__("known", values.shape, "F32")
        self.values = values

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        return self.values[start:stop]


def test_numbers_of_a_merge_by_hand() -> None:
    from issun.export.lora import Pair
    from issun.export.merging import MergedTensor

    weight = np.float32([[1, 2, 3], [4, 5, 6]])  # (out, in)
    a, b = np.float32([[1, 0, -1]]), np.float32([[2], [10]])
    pair = Pair(Known(a), Known(b), 0.5, stored_in_out=False)
    found = MergedTensor(Known(weight), [(pair, 2.0), (pair, -1.0)]).read()
    np.testing.assert_array_equal(found, [[2, 2, 2], [9, 5, 1]])  # + 0.5 * B @ A
    turned = Pair(Known(a), Known(b), 0.5, stored_in_out=True)
    tensor = MergedTensor(Known(weight.T.copy()), [(turned, 1.0)])
    np.testing.assert_array_equal(tensor.read(), [[2, 9], [2, 5], [2, 1]])
    np.testing.assert_array_equal(tensor.read(1, 2), [[2, 5]])
    np.testing.assert_array_equal(weight, [[1, 2, 3], [4, 5, 6]])


def test_adapters_with_weights_add_up(merged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one", factors(1))
    two = write_adapter(tmp_path / "two", factors(2), lora_alpha=1, use_rslora=True)
    two = AdapterFolder(two.folder, two.name, -0.25)
    name = "h.1.attn.c_proj"
    found = merged(one, two).stored[f"{name}.weight"].read()  # GPT-2 stores (in, out)
    expected = merged().stored[f"{name}.weight"].read()
    for seed, scale in ((1, 6 / 2), (2, -0.25 / 2**0.5)):
        tensors = factors(seed)
        a, b = (tensors[f"{PREFIX}{name}.lora_{x}.weight"] for x in "AB")
        expected = expected + np.float32(scale) * (b @ a).T
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_merge_takes_no_more_memory_than_the_weight_and_the_rows_at_hand(
    family: str, tmp_path: Path
) -> None:
    width, inner, rank = 1024, 8192, 4
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": 8}
    if family == "gpt2":
        sizes = {"n_embd": width, "n_inner": inner, "n_head": 8}
    else:
        sizes["num_key_value_heads"] = 8
    layers = "n_layer" if family == "gpt2" else "num_hidden_layers"
    folder, config = tmp_path / "checkpoint", {**SHAPES[family]["tiny"], **sizes, layers: 1}
    make_checkpoint(folder, config, dtype="float16")
    module = "transformer.h.0.mlp.c_proj" if family == "gpt2" else "model.layers.0.mlp.down_proj"
    tensors = {
        f"base_model.model.{module}.lora_A.weight": drawn(rank, inner),
        f"base_model.model.{module}.lora_B.weight": drawn(width, rank),
    }
    adapter = write_adapter(tmp_path / "lora", tensors, r=rank, target_modules=[module])
    plain, merged = (
        _peak(open_checkpoint(folder, adapters=adapters).tensors["h.0.down.weight"])
        for adapters in ([], [adapter])
    )
    assert merged < plain + 0.25 * width * inner * 4


def _peak(tensor: Tensor) -> int:
    tracemalloc.start()
    try:
        tensor.read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# What is read


def test_float16_and_tensors_of_the_base(merged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    half = {name: values.astype(np.float16) for name, values in factors().items()}
    bias = drawn(WIDTH)
    half[f"{PREFIX}h.0.attn.c_proj.base_layer.bias"] = bias
    found = merged(write_adapter(tmp_path / "lora", half))
    np.testing.assert_array_equal(found.stored["h.0.attn.c_proj.bias"].read(), bias)
    assert found.tensors["h.0.out.bias"].read() is not None


def test_a_tied_head_follows_only_an_embedding_that_is_saved_for_both(
    merged: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    table, name = drawn(ROWS, WIDTH), f"{PREFIX}wte.weight"
    both = {**factors(), name: table, "base_model.model.lm_head.weight": table}
    one = merged(write_adapter(tmp_path / "both", both, modules_to_save=["wte", "lm_head"]))
    assert one.network.tie_word_embeddings
    assert "head.weight" not in one.tensors
    saved = {**factors(), name: table}
    two = merged(write_adapter(tmp_path / "one", saved, modules_to_save=["wte"]))
    assert not two.network.tie_word_embeddings
    np.testing.assert_array_equal(
        two.tensors["head.weight"].read(), merged().tensors["embed.weight"].read()
    )
    np.testing.assert_array_equal(two.tensors["embed.weight"].read(), table)


def test_a_vocabulary_may_grow(merged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    table = drawn(ROWS + 4, WIDTH)
    grown = {
        **factors(),
        f"{PREFIX}wte.weight": table,
        "base_model.model.lm_head.weight": table,
    }
    found = merged(write_adapter(tmp_path / "grown", grown))
    assert found.network.vocab_size == ROWS + 4
    assert found.tensors["embed.weight"].shape == (ROWS + 4, WIDTH)
    del grown["base_model.model.lm_head.weight"]
    with pytest.raises(
        CheckpointError, match=r"wte.weight has 504 rows and lm_head.weight has 500"
    ):
        merged(write_adapter(tmp_path / "half", grown))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"target_modules": ["c_attn"]}, ("h.0.attn.c_attn", "h.1.attn.c_attn")),
        ({"target_modules": "all-linear"}, ("h.0.attn.c_attn", "h.1.attn.c_attn", "h.1.mlp.c_fc")),
        ({"target_modules": r"transformer\.h\.1\..*"}, ("h.1.attn.c_attn", "h.1.mlp.c_fc")),
        ({"target_modules": ["c_attn", "wte"], "layers_to_transform": [1]}, ("h.1.attn.c_attn",)),
        ({"target_modules": ["c_fc"], "exclude_modules": ["mlp.c_fc"]}, ()),
        ({"target_modules": ["c_fc", "wte"], "modules_to_save": ["wte"]}, ("h.1.mlp.c_fc",)),
    ],
)
def test_target_modules(fields: dict[str, Any], expected: tuple[str, ...]) -> None:
    config = LoRAConfig(CONFIG | fields, Path("adapter_config.json"))
    modules = ["wte", "h.0.attn.c_attn", "h.1.attn.c_attn", "h.1.mlp.c_fc"]
    found = [m for m in modules if config.targets(f"transformer.{m}", linear=m != "wte")]
    assert tuple(found) == expected


def test_ranks_and_scales_by_hand() -> None:
    fields = {"rank_pattern": {"c_fc": 4, "h.1.attn.c_attn": 9}, "alpha_pattern": {"c_fc": 12}}
    for rslora, scales in ((False, (3.0, 3.0, 6 / 9)), (True, (6 / 2**0.5, 6.0, 2.0))):
        config = LoRAConfig(CONFIG | fields | {"use_rslora": rslora}, Path("adapter_config.json"))
        modules = [f"transformer.h.{m}" for m in ("0.attn.c_attn", "0.mlp.c_fc", "1.attn.c_attn")]
        assert [config.rank(module) for module in modules] == [2, 4, 9]
        np.testing.assert_allclose([config.scale(module) for module in modules], scales)


# What is refused


@pytest.mark.parametrize(
    "fields",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"trainable_token_indices": [1, 2]},
        {"layer_replication": [[0, 2]]},
        {"alora_invocation_tokens": [3]},
        {"init_lora_weights": "pissa"},
        {"bias": "some"},
        {"target_modules": None},
        {"target_modules": "(unclosed"},
        {"rank_pattern": [1]},
        {"modules_to_save": "wte"},
        {"layers_to_transform": ["1"]},
        {"something_new": True},
    ],
)
def test_fields_without_support_are_named(
    refusal: Callable[..., str], fields: dict[str, Any]
) -> None:
    ((key, value),) = fields.items()
    message = refusal(**fields)
    assert f"adapter_config.json: {key} is {value!r}, which issun does not support" in message
    assert "merge_and_unload" in message


def test_other_types_of_adapters_are_named(refusal: Callable[..., str]) -> None:
    assert "the adapter is of type IA3, and issun reads LoRA only" in refusal(peft_type="IA3")


@pytest.mark.parametrize("rank", [0, "8", 1.5])
def test_ranks_are_checked(refusal: Callable[..., str], rank: object) -> None:
    assert f"r is {rank!r}, it must be an integer" in refusal(r=rank)


def test_all_tensors_that_do_not_fit_are_named(refusal: Callable[..., str]) -> None:
    tensors = factors(layers=(0,)) | {
        f"{PREFIX}h.1.attn.c_proj.lora_A.weight": drawn(2, 77),
        f"{PREFIX}h.0.attn.c_attn.lora_A.weight": drawn(2, WIDTH),
        f"{PREFIX}h.0.ln_1.weight": np.ones(WIDTH, np.int32),
        "score.weight": drawn(2),
    }
    message = refusal(tensors)
    for fault in (
        "transformer.h.1.attn.c_proj.lora_A.weight has shape [2, 77], not [2, 119]",
        "transformer.h.1.attn.c_proj.lora_B.weight is missing",
        "transformer.h.0.attn.c_attn.lora_A.weight is unknown",
        "transformer.h.0.ln_1.weight has type I32",
        "score.weight is unknown",
    ):
        assert fault in message


def test_modules_to_save_and_biases_must_be_there(refusal: Callable[..., str]) -> None:
    message = refusal(modules_to_save=["ln_f"], bias="lora_only")
    assert "transformer.ln_f.weight is missing; transformer.ln_f.bias is missing" in message
    assert "transformer.h.1.attn.c_proj.bias is missing" in message


def test_an_adapter_that_changes_nothing(
    refusal: Callable[..., str], merged: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    tensors = {
        name: values * 0 if "lora_B" in name else values for name, values in factors().items()
    }
    assert refusal(tensors).startswith("lora changes nothing: every update")
    copy = tensors | {f"{PREFIX}wte.weight": merged().tensors["embed.weight"].read()}
    with pytest.raises(CheckpointError, match="changes nothing"):
        merged(write_adapter(tmp_path / "copy", copy))
    with pytest.raises(CheckpointError, match="it has no tensor of this model"):
        merged(write_adapter(tmp_path / "none", {}, target_modules=["q_proj"]))


def test_nan_is_named(merged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    name, tensors = f"{PREFIX}h.1.attn.c_proj.lora_B.weight", factors()
    tensors[name][0, 0] = np.nan
    found = merged(write_adapter(tmp_path / "lora", tensors))
    with pytest.raises(CheckpointError, match=f"{name} contains NaN"):
        found.tensors["h.1.out.weight"].read()


def test_replaced_tensors_cannot_be_weighted_or_combined(
    merged: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    tensors = factors() | {f"{PREFIX}ln_f.bias": drawn(WIDTH)}
    one = write_adapter(tmp_path / "one", tensors)
    with pytest.raises(CheckpointError, match=r"one replaces ln_f.bias, .* can only be 1, not 0.5"):
        merged(AdapterFolder(one.folder, one.name, 0.5))
    two = write_adapter(tmp_path / "two", tensors)
    with pytest.raises(CheckpointError, match=r"two replaces ln_f.bias, which another adapter"):
        merged(one, two)


def test_folders_without_an_adapter(merged: Callable[..., Checkpoint], tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "lora")
    weights = folder.folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:300])
    with pytest.raises(CheckpointError, match="is damaged or was not downloaded completely"):
        merged(folder)
    weights.rename(weights.with_name("adapter_model.bin"))
    with pytest.raises(CheckpointError, match=r"weights in adapter_model.bin, .*save_pretrained"):
        merged(folder)
    weights.with_name("adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"lora has no adapter_model.safetensors"):
        merged(folder)
    (folder.folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="is not a LoRA adapter"):
        merged(folder)


# The option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora", ("lora", 1.0)),
        ("lora=0.5", ("lora", 0.5)),
        ("a=b/lora=-1e-1", ("a=b/lora", -0.1)),
        ("someone/ja-lora=2", ("someone/ja-lora", 2.0)),
        ("lora=", ("lora=", 1.0)),
        ("lora=half", ("lora=half", 1.0)),
    ],
)
def test_weights_of_the_option(text: str, expected: tuple[str, float]) -> None:
    found = AdapterSource.parse(text)
    assert (found.source, found.weight) == expected


def test_a_folder_may_end_like_a_weight(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert AdapterSource.parse(str(folder)) == AdapterSource(str(folder))


@pytest.mark.parametrize("weight", ["0", "nan", "inf"])
def test_weights_out_of_range(weight: str) -> None:
    with pytest.raises(ParameterError, match=f"The weight of lora is {float(weight)}"):
        AdapterSource.parse(f"lora={weight}")


def test_a_bundle_names_its_adapters(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "関西弁")
    options = ExportOptions(adapters=(AdapterSource(adapter.folder, 0.5),))
    plain = export(checkpoint(NAME), tmp_path / "plain")
    found = export(checkpoint(NAME), tmp_path / "merged", options)
    assert plain.source.adapters == ()
    (entry,) = read_manifest(tmp_path / "merged").source.adapters
    assert entry == MergedAdapter("関西弁", 0.5, entry.sha256)
    assert len(entry.sha256) == 64
    assert found.bundle_id != plain.bundle_id


def test_adapters_are_not_for_optimum() -> None:
    with pytest.raises(ParameterError, match="cannot be merged with Optimum"):
        ExportOptions(via="optimum", adapters=(AdapterSource("lora"),))
