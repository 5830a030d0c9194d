"""Writes checkpoints of a trained model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from issun.export.checkpoint import Checkpoint
from issun.export.config import read_json
from issun.export.tokenizer_files import TOKENIZER_CONFIGS
from issun.export.weights import SAFETENSORS

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
_GENERATION = "generation_config.json"


def write_checkpoint(model: Any, base: Checkpoint, folder: Path) -> None:
    """Write the torch `model` as a checkpoint with the config and the tokenizer of `base`."""
    from safetensors.torch import save_file  # noqa: PLC0415 - it imports torch

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if base.network.tie_word_embeddings:
        del state[base.family.head_weight]
    save_file(state, folder / SAFETENSORS, metadata={"format": "pt"})
    (folder / SAFETENSORS).chmod(0o644)  # save_file makes it readable by the owner only
    _write_config(base, folder)
    copy_tokenizer(base, folder)


def is_adapter(folder: Path) -> bool:
    """True if `folder` contains an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file()


def copy_tokenizer(base: Checkpoint, folder: Path) -> None:
    """Copy the tokenizer of `base` with its settings and its chat template."""
    source = base.tokenizer.path
    names = (source.name, *TOKENIZER_CONFIGS, "chat_template.jinja")
    for path in {source.parent / name for name in names}:
        if path.is_file():
            shutil.copyfile(path, folder / path.name)


def _write_config(base: Checkpoint, folder: Path) -> None:
    config = read_json(base.folder / "config.json")
    config = {name: value for name, value in config.items() if name != "dtype"}
    config |= {"torch_dtype": "float32"}
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    if (base.folder / _GENERATION).is_file():
        shutil.copyfile(base.folder / _GENERATION, folder / _GENERATION)
