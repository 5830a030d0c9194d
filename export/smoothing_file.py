"""The file in a bundle that low-rank adapters are converted with: smoothing factors and config.

It has the factors of each smoothed layer as tensors, such as `h.0.attention`, and the checkpoint's
config.json as metadata, because the manifest lacks what the order of channels depends on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from issun.export.config import parse_config, read_json
from issun.export.errors import CheckpointError
from issun.export.low_rank import LowRank
from issun.export.models.family import Family
from issun.export.network import Network
from issun.export.smoothing import PLACES, Factors
from issun.export.weights import Array
from issun.runtime.files import reason_of
from issun.runtime.manifest import SMOOTHING_NAME


@dataclass(frozen=True, slots=True)
class Smoothing:
    """The network of a bundle, and the factors of its smoothed layers by the layers' numbers."""

    family: Family
    network: Network
    factors: Mapping[int, Factors]

    def apply(self, updates: Mapping[str, LowRank]) -> dict[str, LowRank]:
        """Low-rank updates of the checkpoint's layers, for the smoothed layers of the bundle."""
        return {base: self._apply(base, update) for base, update in updates.items()}

    def _apply(self, base: str, update: LowRank) -> LowRank:
        kind, _, place = base.partition(".")
        layer, _, part = place.partition(".")
        if kind != "h" or int(layer) not in self.factors:
            return update
        factors, a, b = self.factors[int(layer)], update.a, update.b
        if part in factors.inputs:
            a = a * factors.inputs[part]
        if part in factors.outputs:
            b = b / factors.outputs[part][:, None]
        return LowRank(a, b)


def write_smoothing(folder: Path, config: Path, factors: Mapping[int, Factors]) -> None:
    """Write the factors, and the checkpoint's config.json, to the bundle in `folder`."""
    from safetensors.numpy import save  # noqa: PLC0415

    tensors = {
        f"h.{layer}.{place}": values
        for layer, found in factors.items()
        for place in PLACES
        if (values := getattr(found, place)) is not None
    }
    metadata = {"config": json.dumps(read_json(config), ensure_ascii=False, sort_keys=True)}
    # save_file would make the file readable by its owner only.
    (folder / SMOOTHING_NAME).write_bytes(save(tensors, metadata))


def read_smoothing(bundle: Path) -> Smoothing:
    """Read what `write_smoothing` wrote; raises CheckpointError if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    path = bundle / SMOOTHING_NAME
    if not path.is_file():
        raise CheckpointError(
            "{bundle} has no {name}, which adapters need: export the checkpoint again with this "
            "version of issun, without --via.",
            bundle=bundle,
            name=SMOOTHING_NAME,
        )
    try:
        with safe_open(path, framework="np") as file:
            config = json.loads((file.metadata() or {})["config"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        family, network = parse_config(config, path)
        return Smoothing(family, network, _factors(tensors, network))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "{path} is damaged ({reason}): export the checkpoint again.",
            path=path,
            reason=reason_of(error),
        ) from error


def _factors(tensors: Mapping[str, Array], network: Network) -> dict[int, Factors]:
    """The factors of each layer; raises ValueError, KeyError or TypeError for anything else."""
    found: dict[int, dict[str, Any]] = {}
    for name, values in tensors.items():
        _, layer, place = name.split(".")
        found.setdefault(int(layer), {})[place] = values
    return {layer: Factors(network, **places) for layer, places in found.items()}
