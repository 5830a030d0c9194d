"""Layouts: a worker a core, and fewer with more threads where memory is short."""

from __future__ import annotations

import msgspec
import pytest

from issun.cluster.plan import Layout, plan
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.errors import ParameterError
from issun.runtime.manifest import FileInfo, Manifest, read_manifest

GB = 10**9


def manifest(*, size: float = 0.01, kv: float = 0.01) -> Manifest:
    """A manifest of so many GB of weights, and of keys and values for each slot."""
    found = read_manifest(EMBEDDED)
    shape = msgspec.structs.replace(
        found.architecture, n_layer=1, n_kv_head=1, n_positions=1_000_000 - 128
    )
    shape = msgspec.structs.replace(shape, kv_head_dim=round(kv * GB / (2 * 4 * 10**6)))
    files = {"model.onnx.data": FileInfo(round(size * GB), "")}
    return msgspec.structs.replace(found, architecture=shape, files=files)


@pytest.mark.parametrize(
    ("size", "kv", "cores", "free", "layout"),
    [
        (0.01, 0.008, 2, 16, Layout(2, 1, 16)),
        (0.01, 0.008, 8, 16, Layout(8, 1, 16)),
        (1, 0.1, 2, 16, Layout(2, 1, 16)),
        (1, 0.104, 8, 16, Layout(8, 1, 11)),  # 11 GB for 8 workers of 0.2 GB and 11 slots each
        (1, 0.2, 8, 16, Layout(6, 1, 8)),  # 7 workers would have 7 slots
        (1, 1.2, 8, 16, Layout(1, 8, 8)),
        (1, 4, 8, 16, Layout(1, 8, 2)),
        (10, 4, 8, 4, Layout(1, 8, 1)),
    ],
)
def test_what_fits(size: float, kv: float, cores: int, free: float, layout: Layout) -> None:
    assert plan(manifest(size=size, kv=kv), "float32", cores=cores, free=round(free * GB)) == layout


def test_weights_that_are_not_mapped_count_for_each_worker() -> None:
    small = manifest(size=0.063, kv=0.008)  # smaller bundles are not packed
    assert (
        plan(small, "float32", cores=64, free=30 * GB).workers
        > plan(small, "float32", cores=64, free=20 * GB).workers
    )


def test_what_is_given_stays() -> None:
    small = manifest()
    assert plan(small, "float32", cores=8, free=16 * GB, workers=2) == Layout(2, 4, 16)
    assert plan(small, "float32", cores=8, free=16 * GB, threads=2) == Layout(4, 2, 16)
    assert plan(small, "float32", cores=2, free=16 * GB, workers=9, threads=3, slots=5) == Layout(
        9, 3, 5
    )
    assert plan(small, "float32", cores=2, free=16 * GB, threads=8) == Layout(1, 8, 16)


@pytest.mark.parametrize("name", ["workers", "threads", "slots"])
def test_values_below_one(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} is 0, it must be a whole number"):
        plan(manifest(), "float32", cores=2, free=GB, **{name: 0})  # type: ignore[arg-type]
