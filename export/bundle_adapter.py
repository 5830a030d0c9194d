"""Makes an adapter file for one bundle from a LoRA adapter that PEFT saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from issun.export.errors import CheckpointError, TargetError
from issun.export.hub import locate_adapter
from issun.export.lora import Adapter, read_adapter
from issun.export.low_rank import canonical_low_rank
from issun.export.smoothing_file import read_smoothing
from issun.runtime.files import check_output, reason_of, user_path
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.adapter_file import Header, write_adapter

_MAX_LISTED = 4


def make_adapter(
    bundle: str | Path, adapter: str | Path, target: str | Path, *, token: str | None = None
) -> Header:
    """Write the adapter `adapter` (a folder or a hub id) for the bundle `bundle` to a new file.

    Raises BundleError, TargetError if the file exists or cannot be written, and CheckpointError
    for an adapter that does not fit the bundle's checkpoint, changes nothing, or changes more than
    the linear layers of blocks, and for a bundle that was exported without what adapters need.
    """
    folder, target = user_path(bundle), user_path(target)
    manifest = read_manifest(folder)
    if target.exists():
        raise TargetError("{target} exists: choose another name.", target=target)
    check_output(target, TargetError)
    smoothing = read_smoothing(folder)
    located = locate_adapter(str(adapter), token=token)
    found = read_adapter(located.folder, smoothing.family, smoothing.network, name=located.name)
    updates = canonical_low_rank(found.pairs, smoothing.family, smoothing.network)
    _check_updates_only(found, [name for name in updates if not name.startswith("h.")])
    found.refuse_zero()
    matrices = {
        name: (np.ascontiguousarray(update.a.T), np.ascontiguousarray(update.b.T))
        for name, update in smoothing.apply(updates).items()
    }
    try:
        return write_adapter(
            target,
            matrices,
            bundle=manifest.bundle_id,
            source=found.name,
            source_sha256=found.sha256(),
            scale=max(pair.scale for pair in found.pairs.values()),
        )
    except OSError as error:
        raise TargetError(
            "{target} cannot be written: {reason}", target=target, reason=reason_of(error)
        ) from error


def _check_updates_only(adapter: Adapter, outside: list[str]) -> None:
    """Raise CheckpointError if an adapter changes more than linear layers of blocks."""
    more = [*adapter.replaced, *outside]
    if more:
        listed = ", ".join(more[:_MAX_LISTED]) + (", …" if len(more) > _MAX_LISTED else "")
        raise CheckpointError(
            "{adapter} also changes {names}, which only a merged model can have: export its base "
            "with --adapter {adapter}.",
            adapter=adapter.name,
            names=listed,
        )
