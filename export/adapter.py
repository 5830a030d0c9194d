"""Recognizes the files of adapters (LoRA and similar), and refuses one in place of a model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from issun.export.config import read_json
from issun.export.errors import CheckpointError
from issun.export.weights import WEIGHT_FILES

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS, ADAPTER_PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_PICKLED, "pytorch_adapter.bin")


def refuse_adapter(folder: Path, names: Collection[str], *, name: str | None = None) -> None:
    """Raise CheckpointError if any of the file `names` in `folder` belongs to an adapter.

    `name` identifies the folder in the message; its path by default.
    """
    found = [file for file in _FILES if file in names]
    if not found:
        return
    if not any(file in names for file in WEIGHT_FILES):
        raise CheckpointError(
            "{folder} is an adapter for {base}: export that model with --adapter {folder}, or "
            "merge the two first (peft: merge_and_unload) and export the result.",
            folder=name or folder,
            base=_base(folder),
        )
    raise CheckpointError(
        "{folder} contains an adapter for {base} ({names}) next to a model: merge the two first "
        "(peft: merge_and_unload) and export the result, or remove the adapter's files to export "
        "the model without it.",
        folder=name or folder,
        base=_base(folder),
        names=", ".join(found),
    )


def check_adapter_files(name: str | Path, names: Collection[str]) -> None:
    """Raise CheckpointError unless an adapter that issun can read is among the file `names`.

    `name` identifies the folder in the message.
    """
    if ADAPTER_CONFIG not in names:
        raise CheckpointError(
            "{folder} is not a LoRA adapter: it has no {name}.", folder=name, name=ADAPTER_CONFIG
        )
    if ADAPTER_WEIGHTS in names:
        return
    if ADAPTER_PICKLED in names:
        raise CheckpointError(
            "{folder} has its weights in {pickled}, which issun does not read: load the adapter "
            "with peft and save it again (save_pretrained), which writes {name}.",
            folder=name,
            pickled=ADAPTER_PICKLED,
            name=ADAPTER_WEIGHTS,
        )
    raise CheckpointError("{folder} has no {name}.", folder=name, name=ADAPTER_WEIGHTS)


def _base(folder: Path) -> str:
    """The base model that the adapter's config names."""
    try:
        config = read_json(folder / ADAPTER_CONFIG)
    except CheckpointError:  # the adapter is refused in any case
        config = {}
    base = config.get("base_model_name_or_path") or config.get("model_name")
    return str(base) if base else "another model"
