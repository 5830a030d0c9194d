"""Adapters are refused with the name of their base model, with or without a model next to them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from issun.export import CheckpointError, export
from issun.export.checkpoint import open_checkpoint
from tests.cli.conftest import issun

BASE = "inu-ai/alpaca-guanaco-japanese-gpt-1b"
CONFIG = {"peft_type": "LORA", "base_model_name_or_path": BASE, "r": 8}
LORA = {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": np.ones((2, 2), np.float32)}


def write_adapter(folder: Path, *, config: object = CONFIG, weights: str = "safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    if weights == "safetensors":
        save_file(LORA, folder / "adapter_model.safetensors")
    elif weights:
        (folder / weights).write_bytes(b"PK")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    with pytest.raises(CheckpointError) as again:
        export(folder, folder.parent / "bundle")
    assert str(again.value) == str(caught.value)
    assert not (folder.parent / "bundle").exists()
    return str(caught.value)


ALONE = "is an adapter for {base}: export that model with --adapter "


@pytest.mark.parametrize("weights", ["safetensors", "adapter_model.bin", ""])
@pytest.mark.parametrize("tokenizer", [True, False])
def test_adapter_alone(tmp_path: Path, spiece: Path, weights: str, tokenizer: bool) -> None:
    folder = write_adapter(tmp_path / "adapter", weights=weights)
    if tokenizer:
        shutil.copyfile(spiece, folder / "spiece.model")
    assert refusal(folder).startswith(f"{folder} {ALONE.format(base=BASE)}")


def test_adapter_with_a_model_config(tmp_path: Path, checkpoint: Callable[[str], Path]) -> None:
    folder = write_adapter(tmp_path / "adapter")
    for name in ("config.json", "spiece.model"):
        shutil.copyfile(checkpoint("head-17") / name, folder / name)
    assert ALONE.format(base=BASE) in refusal(folder)


@pytest.mark.parametrize(
    ("config", "base"),
    [
        (None, "another model"),
        ({}, "another model"),
        ({"base_model_name_or_path": None}, "another model"),
        ([], "another model"),
        ({"base_model_name_or_path": "../base"}, "../base"),
        ({"model_name": "rinna/japanese-gpt2-small"}, "rinna/japanese-gpt2-small"),
    ],
)
def test_base_model_in_the_message(tmp_path: Path, config: object, base: str) -> None:
    folder = write_adapter(tmp_path / "adapter", config=config)
    assert ALONE.format(base=base) in refusal(folder)


@pytest.mark.parametrize(
    ("name", "written", "names"),
    [
        ("head-17", {}, "adapter_config.json, adapter_model.safetensors"),
        ("bfloat16-sharded", {"weights": ""}, "adapter_config.json"),
        (
            "head-17",
            {"weights": "pytorch_adapter.bin"},
            "adapter_config.json, pytorch_adapter.bin",
        ),
        (
            "bfloat16-sharded",
            {"config": {}, "weights": "adapter_model.bin"},
            "adapter_config.json, adapter_model.bin",
        ),
        ("head-17", {"config": None}, "adapter_model.safetensors"),
    ],
)
def test_adapter_next_to_a_model(
    tmp_path: Path,
    checkpoint: Callable[[str], Path],
    name: str,
    written: dict[str, Any],
    names: str,
) -> None:
    folder = shutil.copytree(checkpoint(name), tmp_path / "checkpoint")
    write_adapter(folder, **written)
    base = BASE if "config" not in written else "another model"
    message = refusal(folder)
    assert message.startswith(
        f"{folder} contains an adapter for {base} ({names}) next to a model: "
    )
    assert "merge_and_unload" in message


def test_adapter_in_a_subfolder_is_ignored(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    folder = shutil.copytree(checkpoint("head-17"), tmp_path / "checkpoint")
    write_adapter(folder / "checkpoint-500")
    assert open_checkpoint(folder).tokenizer.tokens.pieces == 400


@pytest.mark.slow
def test_command_line_prints_one_line(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter")
    for language, words in (("en", "export that model with --adapter"), ("ja", "アダプターです")):
        result = issun("export", folder, "-o", tmp_path / "bundle", ISSUN_LANG=language)
        assert (result.code, result.out) == (2, "")
        assert result.err.count("\n") == 1
        assert BASE in result.err
        assert words in result.err
