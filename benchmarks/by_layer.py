"""The linear layers of a bundle by sensitivity: how far each one changes its block's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from issun.export.calibrate import NUM_WINDOWS, calibrate, calibration_ids
from issun.export.kinds import Kind
from issun.export.lazy import CheckpointWeights
from issun.export.source import open_source
from issun.runtime.manifest import Manifest


class LayerSensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """A linear layer, its precision, and the relative energy of its block's output change."""

    linear: str
    precision: str
    share: float


def by_layer(
    checkpoint: Path,
    manifest: Manifest,
    text: str,
    *,
    tokenizer: str | None = None,
    progress: Callable[[float], object] = lambda layers: None,
) -> list[LayerSensitivity]:
    """The linear layers of a bundle of `checkpoint`, the most sensitive first.

    Weights are smoothed as in the bundle, but always rounded to nearest; GPTQ would change less.
    Raises CheckpointError for an invalid checkpoint.
    """
    _, found, _ = open_source(str(checkpoint), tokenizer=tokenizer)
    weights = CheckpointWeights(found.network, found.tensors, "mixed")
    ids = calibration_ids(
        found.network, found.tokenizer.open(), manifest.prompt, text, windows=NUM_WINDOWS
    )
    name = manifest.precision.name
    smooth_for: Kind = "int8" if name == "int8" else "int4"
    calibrated = calibrate(
        weights,
        ids,
        smooth_for=smooth_for,
        held_out=ids,
        progress=lambda layers: progress(int(layers)),
    )
    layers = []
    for linear, by_kind in calibrated.sensitivities.items():
        kind = cast(Kind, manifest.precision.by_linear.get(linear, name))
        share = by_kind.get(kind, 0.0)
        layers.append(LayerSensitivity(linear=linear, precision=kind, share=share))
    return sorted(layers, key=lambda layer: -layer.share)
