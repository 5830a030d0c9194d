"""Reads a checkpoint's config.json and checks every field that changes the arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from issun.export.errors import CheckpointError
from issun.export.models import FAMILIES
from issun.export.models.family import Family
from issun.export.models.fields import Fields
from issun.export.network import Network
from issun.runtime.files import as_utf8, open_regular, read_bounded, reason_of

_MAX_BYTES = 256 << 20  # of any file of JSON
# Fields that change the network beyond what its family describes, or the format of its weights.
_REFUSED = (
    *("quantization_config", "compression_config", "auto_map", "trust_remote_code"),
    *("num_local_experts", "num_experts", "n_routed_experts", "rope_interleaved", "use_mrope"),
    *("pruned_heads", "is_encoder_decoder", "use_bidirectional_attention"),
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError if the file contains anything else."""
    try:
        with open_regular(path) as file:
            content = json.loads(as_utf8(read_bounded(file, _MAX_BYTES)).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError("{path} is not a JSON object.", path=path)
    return content


def read_config(folder: Path) -> tuple[Family, Network]:
    """Read config.json in `folder`; raises CheckpointError for models that issun cannot export."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError("{folder} is not a checkpoint: it has no config.json.", folder=folder)
    return parse_config(read_json(path), path)


def parse_config(raw: dict[str, Any], path: Path) -> tuple[Family, Network]:
    """The family and the network of a config.json; `path` is used in error messages only.

    Raises CheckpointError for models that issun cannot export.
    """
    family, fields = _find_family(raw, path), Fields(raw, path)
    for key in _REFUSED:
        if raw.get(key):
            fields.refuse(key)
    if not fields.flag("is_causal", default=True):
        fields.refuse("is_causal")
    return family, family.network(fields)


def _find_family(raw: dict[str, Any], path: Path) -> Family:
    kind = raw.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    classes = raw.get("architectures") or (family.classes[:1] if family else [])
    if not isinstance(classes, list | tuple):
        classes = [classes]
    # FSDP prefixes the name of a class that it has wrapped.
    names = {str(name).removeprefix("FSDP") for name in classes}
    if family is None or not names & set(family.classes):
        raise CheckpointError(
            "{path}: the architecture is {found}; issun supports {known}.",
            path=path,
            found=" ".join(f"{kind} ({', '.join(map(str, classes))})".split()),
            known=", ".join(dict.fromkeys(name for f in FAMILIES.values() for name in f.classes)),
        )
    return family
