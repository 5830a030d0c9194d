"""Adapters of a model, LoRA and its like: named and refused, since issun exports whole models."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.export.weights import WEIGHT_FILES

ADAPTER_CONFIG = "adapter_config.json"
_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin", "pytorch_adapter.bin")


def refuse_adapter(folder: Path, names: Collection[str], *, name: str | None = None) -> None:
    """Raise CheckpointError where the `names` in `folder` are an adapter's, alone or not.

    `name` is what the folder is called in the message, where that is not its path.
    """
    found = [file for file in _FILES if file in names]
    if not found:
        return
    if not any(file in names for file in WEIGHT_FILES):
        raise CheckpointError(
            "{folder} is an adapter of {base}: merge it with its base first (peft: "
            "merge_and_unload) and export the result.",
            folder=name or folder,
            base=_base(folder),
        )
    raise CheckpointError(
        "{folder} holds an adapter of {base} ({names}) beside a model: merge the two first (peft: "
        "merge_and_unload) and export the result, or take the adapter's files away if the model "
        "is to be exported without them.",
        folder=name or folder,
        base=_base(folder),
        names=", ".join(found),
    )


def _base(folder: Path) -> str:
    """The model that an adapter was made for, as it says itself."""
    try:
        said = read_json(folder / ADAPTER_CONFIG)
    except CheckpointError:  # it is refused anyhow
        said = {}
    base = said.get("base_model_name_or_path") or said.get("model_name")
    return str(base) if base else "another model"
