"""Weight files with the same network under other names, and with additional tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from issun.export import CheckpointError, ExportOptions, export
from issun.export.checkpoint import open_checkpoint
from tests.checkpoints import SHAPES, Array, save_weights

TIED, UNTIED = "head-17", "head-40-untied"
BLOCK = "transformer.h.1."
Weights = dict[str, Array]
Rename = Callable[[str], str]


@pytest.fixture
def make(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """`make(edit, name)`: a copy of a checkpoint with weights changed by `edit`."""

    def made(edit: Callable[[Weights], Weights | None], name: str = TIED) -> Path:
        folder = shutil.copytree(checkpoint(name), tmp_path / "checkpoint")
        weights = load_file(folder / "model.safetensors")
        save_file(edit(weights) or weights, folder / "model.safetensors")
        return folder

    return made


def renamed(rename: Rename) -> Callable[[Weights], Weights]:
    return lambda weights: {rename(name): array for name, array in weights.items()}


def opened(folder: Path) -> tuple[Weights, list[str]]:
    """The tensors that an export uses, and its notices."""
    notices: list[str] = []
    tensors = open_checkpoint(folder, notify=lambda t, **v: notices.append(t.format(**v))).stored
    return {name: tensor.read() for name, tensor in tensors.items()}, notices


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(found: Weights, folder: Path) -> None:
    expected, notices = opened(folder)
    assert notices == []
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def bare(name: str) -> str:
    return name.removeprefix("transformer.")


def within_blocks(marker: str) -> Rename:
    def rename(name: str) -> str:
        parts = name.split(".")
        return ".".join([*parts[:3], marker, *parts[3:]]) if parts[1] == "h" else name

    return rename


WRAPPED: dict[str, Rename] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DDP": lambda name: f"module.{name}",
    "DDP of a compiled model": lambda name: f"module._orig_mod.{name}",
    "a compiled DDP": lambda name: f"_orig_mod.module.{name}",
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}",
    "FSDP of blocks": within_blocks("_fsdp_wrapped_module"),
    "compiled blocks": within_blocks("_orig_mod"),
    "checkpointed blocks in DDP": lambda name: (
        f"module.{within_blocks('_checkpoint_wrapped_module')(name)}"
    ),
    "a compiled base model": lambda name: name.replace("transformer.", "transformer._orig_mod."),
    "Lightning": lambda name: f"model.{name}",
    "Lightning, compiled": lambda name: f"model._orig_mod.{name}",
    "Lightning's strategies": lambda name: f"_forward_module.model.{name}",
    "peft, merged": lambda name: f"base_model.model.{name}",
    "trl": lambda name: f"pretrained_model.{name}",
    "a name of one's own": lambda name: f"gpt.{name}",
    "no base model": bare,
    "no base model, compiled": lambda name: f"_orig_mod.{bare(name)}",
    "no base model in DDP": lambda name: f"module.{bare(name)}",
    "no base model, a name of one's own": lambda name: f"gpt2.{bare(name)}",
    "a base model of a base model": lambda name: f"transformer.{name}",
}


@pytest.mark.parametrize("name", [TIED, UNTIED])
@pytest.mark.parametrize("how", WRAPPED)
def test_names_with_wrapper_prefixes(
    make: Callable[..., Path], checkpoint: Callable[[str], Path], how: str, name: str
) -> None:
    found, notices = opened(make(renamed(WRAPPED[how]), name))
    assert notices == []
    assert_same(found, checkpoint(name))


def test_wrapped_shards(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint(TIED), tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_weights(folder, {f"_orig_mod.{name}": a for name, a in weights.items()}, shards=3)
    assert_same(opened(folder)[0], checkpoint(TIED))


@pytest.mark.parametrize("how", ["plain", "no base model", "DDP", "Lightning", "compiled blocks"])
def test_tied_model_with_the_head_only(
    make: Callable[..., Path], checkpoint: Callable[[str], Path], how: str
) -> None:
    rename = WRAPPED.get(how, lambda name: name)

    def edit(weights: Weights) -> Weights:
        head = rename("transformer.wte.weight").replace("wte", "lm_head")
        head = head.replace("transformer.", "")
        return {
            head if name == "transformer.wte.weight" else rename(name): array
            for name, array in weights.items()
        }

    found, notices = opened(make(edit))
    assert notices == []
    assert_same(found, checkpoint(TIED))


def test_tied_model_with_a_copy_of_the_embedding_as_head(
    make: Callable[..., Path], checkpoint: Callable[[str], Path]
) -> None:
    folder = make(lambda w: w | {"lm_head.weight": w["transformer.wte.weight"].copy()})
    found, notices = opened(folder)
    assert notices == []
    assert_same(found, checkpoint(TIED))


@pytest.mark.parametrize("row", [0, 250, -1])
def test_tied_model_with_a_different_head_uses_the_embedding(
    make: Callable[..., Path], checkpoint: Callable[[str], Path], row: int
) -> None:
    def edit(weights: Weights) -> Weights:
        head = weights["transformer.wte.weight"].copy()
        head[row, -1] += 1
        return weights | {"lm_head.weight": head}

    found, notices = opened(make(edit))
    assert len(notices) == 1
    assert "lm_head.weight differs from wte.weight" in notices[0]
    assert "tie_word_embeddings" in notices[0]
    assert_same(found, checkpoint(TIED))


def test_tied_head_of_another_shape_is_refused(make: Callable[..., Path]) -> None:
    rows, width = SHAPES[TIED].vocab_size, SHAPES[TIED].n_embd
    folder = make(lambda w: w | {"lm_head.weight": np.zeros((rows + 1, width), np.float32)})
    assert f"lm_head.weight has shape [{rows + 1}, {width}], not [{rows}, {width}]" in refusal(
        folder
    )


def test_untied_model_without_its_head(make: Callable[..., Path]) -> None:
    def edit(weights: Weights) -> Weights:
        return {f"module.{n}": a for n, a in weights.items() if n != "lm_head.weight"}

    assert refusal(make(edit, UNTIED)).endswith(
        "do not match its config.json: lm_head.weight is missing."
    )


def test_untied_model_without_its_embedding(make: Callable[..., Path]) -> None:
    def edit(weights: Weights) -> None:
        del weights["transformer.wte.weight"]

    assert refusal(make(edit, UNTIED)).endswith(
        "do not match its config.json: wte.weight is missing."
    )


FOREIGN = [
    "score.weight",
    "score.bias",
    "classifier.weight",
    "qa_outputs.bias",
    "v_head.summary.weight",
    "v_head.summary.bias",
    "value_head.0.weight",
    "multiple_choice_head.summary.weight",
    "lm_head.bias",
    "transformer.rotary_emb.inv_freq",
    "transformer.h.0.attn.rotary_emb.inv_freq",
    "loss_fct.weight",
    "ref_model.transformer.wte.weight",
    "ref_model.transformer.h.0.ln_1.weight",
    "_orig_mod.transformer.wte.weight",
]


@pytest.mark.parametrize("name", [TIED, UNTIED])
def test_foreign_tensors_are_left_out_and_reported(
    make: Callable[..., Path], checkpoint: Callable[[str], Path], name: str
) -> None:
    added = {foreign: np.ones(3, np.float32) for foreign in FOREIGN}
    folder = make(lambda weights: weights | added, name)
    found, notices = opened(folder)
    assert len(notices) == 1
    assert notices[0].startswith(
        f"{folder}: ignored _orig_mod.transformer.wte.weight, classifier.w"
    )
    assert notices[0].endswith(f" and {len(FOREIGN) - 12} more, which gpt2 models do not have.")
    assert_same(found, checkpoint(name))


@pytest.mark.parametrize("rename", [bare, lambda name: f"model.{bare(name)}"])
def test_foreign_head_next_to_a_base_model(
    make: Callable[..., Path], checkpoint: Callable[[str], Path], rename: Rename
) -> None:
    def edit(weights: Weights) -> Weights:
        return renamed(rename)(weights | {"score.weight": np.ones((2, 3), np.int8)})

    folder = make(edit)
    found, notices = opened(folder)
    assert notices == [
        f"{folder}: ignored {rename('score.weight')}, which gpt2 models do not have."
    ]
    assert_same(found, checkpoint(TIED))


def test_notices_reach_the_caller_of_an_export(make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(lambda weights: weights | {"score.weight": np.ones(3, np.float32)})
    notices: list[str] = []
    export(
        folder,
        tmp_path / "bundle",
        ExportOptions(precision="float32"),
        notify=lambda template, **values: notices.append(template.format(**values)),
    )
    assert notices[:1] == [f"{folder}: ignored score.weight, which gpt2 models do not have."]


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "model."])
@pytest.mark.parametrize(
    "unknown",
    [
        "transformer.h.0.attn.q_norm.weight",
        "transformer.h.1.extra",
        "transformer.h.2.ln_1.bias",
        "transformer.h.0.crossattention.c_attn.weight",
        "transformer.h.0.mlp.c_fc.weight.absmax",
        "transformer.wte.scale",
        "transformer.emb_norm.weight",
    ],
)
def test_unknown_tensor_of_the_network_is_refused(
    make: Callable[..., Path], unknown: str, prefix: str
) -> None:
    def edit(weights: Weights) -> Weights:
        added = weights | {unknown: np.ones(SHAPES[TIED].n_embd, np.float32)}
        return renamed(lambda name: prefix + name)(added)

    assert refusal(make(edit)).endswith(
        f"do not match its config.json: {bare(unknown)} is unknown."
    )


def test_unknown_tensor_in_a_block_of_a_base_model_is_refused(make: Callable[..., Path]) -> None:
    folder = make(lambda w: renamed(bare)(w | {"h.0.extra": np.ones(1, np.float32)}))
    assert refusal(folder).endswith("do not match its config.json: h.0.extra is unknown.")


def test_wrong_shape_with_a_wrapper_prefix_is_refused(make: Callable[..., Path]) -> None:
    def edit(weights: Weights) -> Weights:
        changed = weights | {f"{BLOCK}ln_1.bias": np.ones(7, np.float32)}
        return renamed(lambda name: f"_orig_mod.{name}")(changed)

    assert "h.1.ln_1.bias has shape [7], not" in refusal(make(edit))


def test_several_networks_are_refused(make: Callable[..., Path]) -> None:
    def edit(weights: Weights) -> Weights:
        actor, critic = ({f"{who}.{n}": a for n, a in weights.items()} for who in ("pi", "v"))
        return actor | critic

    assert (
        "contains several networks, and none under a name that transformers reads: pi.*, v.*."
        in refusal(make(edit))
    )


ADAPTED = [
    "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
    "base_model.model.transformer.h.0.attn.c_attn.lora_B.default.weight",
    "transformer.h.0.attn.c_attn.lora_magnitude_vector.default.weight",
    "transformer.wte.lora_embedding_A.default",
    "base_model.model.transformer.h.0.mlp.c_fc.ia3_l",
    "base_model.model.transformer.h.0.attn.c_attn.hada_w1_a",
    "base_model.model.transformer.h.0.attn.c_attn.base_layer.weight",
    "base_model.model.lm_head.modules_to_save.default.weight",
    "base_model.model.transformer.h.0.ln_1.ln_tuning_layers.weight",
    "base_model.model.lm_head.vera_lambda_b",
    "base_model.model.lm_head.boft_R",
    "prompt_embeddings",
]


@pytest.mark.parametrize("name", ADAPTED)
@pytest.mark.parametrize("alone", [True, False])
def test_adapter_in_a_model_file_is_named(
    make: Callable[..., Path], name: str, alone: bool
) -> None:
    added = {name: np.ones((4, 4), np.float32)}
    message = refusal(make(lambda weights: added if alone else weights | added))
    assert f"the weights contain an adapter ({name})" in message
    assert "merge_and_unload" in message


@pytest.mark.parametrize(
    "architecture",
    ["GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model", "FSDPGPT2LMHeadModel"],
)
def test_architectures_with_the_same_head(
    make: Callable[..., Path], checkpoint: Callable[[str], Path], architecture: str
) -> None:
    folder = make(lambda weights: None)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"architectures": [architecture]}), encoding="utf-8")
    assert_same(opened(folder)[0], checkpoint(TIED))
