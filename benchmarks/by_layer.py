"""Which linears of a bundle hurt most: how far each, quantized alone, moves its block's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from issun.export.calibrate import NUM_WINDOWS, calibrate, calibration_ids
from issun.export.lazy import CheckpointWeights, Kind
from issun.export.quantization_loss import product_loss
from issun.export.source import open_source
from issun.runtime.manifest import Manifest


class Hurt(msgspec.Struct, frozen=True, kw_only=True):
    """A linear, its precision, and what it changes as a share of its block's output's energy."""

    linear: str
    precision: str
    share: float


def by_layer(
    checkpoint: Path,
    manifest: Manifest,
    text: str,
    *,
    tokenizer: str | None = None,
    progress: Callable[[int], object] = lambda layer: None,
) -> list[Hurt]:
    """The linears of a bundle of `checkpoint`, the one that changes most first.

    Weights are evened out as for the bundle, and rounded to nearest whatever it has: a GPTQ bundle
    loses less. Raises CheckpointError for a bad checkpoint.
    """
    _, found, _ = open_source(str(checkpoint), tokenizer=tokenizer)
    weights = CheckpointWeights(found.config, found.tensors, "mixed")
    ids = calibration_ids(
        found.config, found.tokenizer.open(), manifest.prompt, text, windows=NUM_WINDOWS
    )
    name = manifest.precision.name
    error = product_loss("int8" if name == "int8" else "int4")
    moves = calibrate(weights, ids, error=error, progress=progress).moves
    hurt = []
    for linear, moved in moves.items():
        kind = cast(Kind, manifest.precision.by_linear.get(linear, name))
        hurt.append(Hurt(linear=linear, precision=kind, share=moved.get(kind, 0.0)))
    return sorted(hurt, key=lambda one: -one.share)
