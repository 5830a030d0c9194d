"""Checkpoints with other tensor names and foreign heads, compared with transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from issun.export import CheckpointError, ExportOptions, export
from issun.export.checkpoint import open_checkpoint
from issun.runtime import Model
from tests.checkpoints import Array
from tests.parity.test_checkpoints import assert_same, export_float32

pytestmark = pytest.mark.parity

TIED, UNTIED = "head-20-width-100", "head-40-untied"
Weights = dict[str, Array]


def weights_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def copied(source: Path, target: Path, weights: Weights) -> Path:
    """A copy of the checkpoint `source` with other weights."""
    shutil.copytree(source, target)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def saved_bin(source: Path, target: Path, state: Any) -> Path:
    """A copy of the checkpoint `source` with `state` as pickled weights."""
    import torch

    shutil.copytree(source, target)
    (target / "model.safetensors").unlink()
    torch.save(state, target / "pytorch_model.bin")
    return target


@pytest.mark.sampled
@pytest.mark.parametrize("name", [TIED, UNTIED])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_orig_mod.module.", "model."])
def test_wrapped_names(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, prefix: str, name: str
) -> None:
    source = checkpoint(name)
    weights = {prefix + key: array for key, array in weights_of(source).items()}
    folder = copied(source, tmp_path / "saved", weights)
    assert_same(ref, source, export_float32(folder, tmp_path / "bundle"))


def test_checkpoints_saved_from_torch_compile_and_ddp(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch

    source = checkpoint(TIED)
    state = torch.compile(torch.nn.ModuleDict({"module": ref.load_model(source)})).state_dict()
    assert "_orig_mod.module.transformer.wte.weight" in state
    folder = saved_bin(source, tmp_path / "saved", state)
    assert_same(ref, source, export_float32(folder, tmp_path / "bundle"))


@pytest.mark.sampled
@pytest.mark.parametrize("name", [TIED, UNTIED])
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "module", "model"])
def test_state_dicts_in_training_checkpoints(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, key: str, name: str
) -> None:
    source = checkpoint(name)
    state = {f"model.{k}": t for k, t in ref.load_model(source).state_dict().items()}
    whole = {"epoch": 3, "optimizer_states": [{"lr": 0.1}], key: state}
    folder = saved_bin(source, tmp_path / "saved", whole)
    assert_same(ref, source, export_float32(folder, tmp_path / "bundle"))


@pytest.mark.parametrize("state", [{}, {"state_dict": {}}, {"epoch": 1}, [1], {"model": {"a": 1}}])
def test_pickle_without_a_table_is_refused(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, state: Any
) -> None:
    folder = saved_bin(checkpoint(TIED), tmp_path / "saved", state)
    with pytest.raises(CheckpointError, match="does not contain a table of tensors"):
        open_checkpoint(folder)


@pytest.mark.sampled
@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_tied_head_alone(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, wrapper: str, form: str
) -> None:
    import torch

    source = checkpoint(TIED)
    weights = weights_of(source)
    weights["lm_head.weight"] = weights.pop("transformer.wte.weight")
    weights = {wrapper + key: array for key, array in weights.items()}
    if form == "bin":
        state = {key: torch.from_numpy(array) for key, array in weights.items()}
        folder = saved_bin(source, tmp_path / "saved", state)
    else:
        folder = copied(source, tmp_path / "saved", weights)
    assert_same(ref, source, export_float32(folder, tmp_path / "bundle"))


FOREIGN: dict[str, dict[str, tuple[int, ...]]] = {
    "classification": {"score.weight": (2, 100)},
    "tokens": {"classifier.weight": (2, 100), "classifier.bias": (2,)},
    "answers": {"qa_outputs.weight": (2, 100), "qa_outputs.bias": (2,)},
    "trl": {"v_head.summary.weight": (1, 100), "v_head.summary.bias": (1,)},
    "two heads": {"multiple_choice_head.summary.weight": (1, 100)},
    "a bias": {"lm_head.bias": (512,)},
    "rotary": {"transformer.h.0.attn.rotary_emb.inv_freq": (8,)},
    "a second model": {"critic.transformer.wte.weight": (512, 100)},
    "another head": {"lm_head.weight": (512, 100)},
}


@pytest.mark.sampled
@pytest.mark.parametrize("kind", FOREIGN)
def test_tensors_that_transformers_ignores(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    source = checkpoint(TIED)
    added = {name: np.full(shape, 0.3, np.float32) for name, shape in FOREIGN[kind].items()}
    folder = copied(source, tmp_path / "saved", weights_of(source) | added)
    notices: list[str] = []
    export(
        folder,
        tmp_path / "bundle",
        ExportOptions(precision="float32"),
        notify=lambda template, **values: notices.append(template.format(**values)),
    )
    assert len(notices) == 2  # the last one names the prompt format
    assert next(iter(added)) in notices[0]
    assert_same(ref, folder, tmp_path / "bundle")


@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["GPT2Model", "GPT2DoubleHeadsModel"])
def test_models_with_the_same_head(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    import transformers

    source, folder = checkpoint(TIED), tmp_path / "saved"
    model = getattr(transformers, kind).from_pretrained(source)
    model.save_pretrained(folder)
    for name in ("spiece.model", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == [kind]
    assert_same(ref, source, export_float32(folder, tmp_path / "bundle"))


@pytest.mark.sampled
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_optimum_uses_the_same_tensors(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, precision: Any
) -> None:
    pytest.importorskip("optimum.exporters.onnx", reason="optimum-onnx is not installed")
    source, ids = checkpoint(TIED), list(range(7, 40))
    weights = weights_of(source) | {"v_head.summary.weight": np.ones((1, 100), np.float32)}
    weights["lm_head.weight"] = weights.pop("transformer.wte.weight")
    wrapped = {f"_orig_mod.{key}": array for key, array in weights.items()}
    folder = copied(source, tmp_path / "saved", wrapped)
    scores = []
    for name, checkpoint_ in (("plain", source), ("wrapped", folder)):
        options = ExportOptions(precision=precision, via="optimum")
        export(checkpoint_, tmp_path / name, options)
        with Model.load(tmp_path / name) as model:
            scores.append(model.score(ids))
    assert np.array_equal(*scores)


@pytest.mark.sampled
@pytest.mark.parametrize("name", [TIED, UNTIED, "unscaled", "bfloat16-sharded"])
def test_training_starts_with_the_same_tensors(
    ref: ModuleType, checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    import torch

    from issun.export.torch_model import load_torch

    source, ids = checkpoint(name), list(range(7, 40))
    folder = source
    if (source / "model.safetensors").is_file():
        weights = {f"module.{key}": array for key, array in weights_of(source).items()}
        folder = copied(source, tmp_path / "saved", weights)
    model = load_torch(open_checkpoint(folder)).eval()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tied = model.lm_head.weight is model.transformer.wte.weight
    assert tied is open_checkpoint(folder).network.tie_word_embeddings
    expected = ref.logits_of(ref.load_model(source), ids)
    assert np.abs(ref.logits_of(model, ids) - expected).max() <= 1e-5
