"""Helpers for tests of packed weights: logits, the cache entry and what is mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from issun.runtime import Model
from issun.runtime.weights.weight_cache import WeightCache

IDS = [int(i) for i in np.random.default_rng(0).integers(7, 400, 40)]
Notes = list[str]


def load(folder: Path, notes: Notes | None = None, **options: object) -> Model:
    told = [] if notes is None else notes
    return Model.load(
        folder,
        threads=1,
        notify=lambda template, **values: told.append(template.format(**values)),
        **options,  # type: ignore[arg-type]
    )


def logits(folder: Path, notes: Notes | None = None, **options: object) -> NDArray[np.float32]:
    """Return the logits of several rows together and of one row after them."""
    with load(folder, notes, **options) as model:
        several = model.score(IDS)
        held = model.new_cache()
        model.decoder.prefill(held, IDS)
        return np.concatenate([several, model.decoder.step(held, 9)[None]])


def exact(folder: Path) -> NDArray[np.float32]:
    return logits(folder, keep_packed=False)


def mapped() -> int:
    """Return the bytes of packed weights that this process maps."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux says what is mapped")
    lines = maps.read_text(encoding="utf-8").splitlines()
    places = [line.split()[0].split("-") for line in lines if line.endswith("packed.data")]
    return sum(int(end, 16) - int(start, 16) for start, end in places)


def the_entry(cache: WeightCache) -> Path:
    (entry,) = cache.entries()
    return cache.folder / entry.key
