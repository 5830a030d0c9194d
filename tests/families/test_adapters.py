"""An adapter of every family, beside the bundle and merged at export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issun.export import AdapterSource, ExportOptions, export
from issun.export.bundle_adapter import make_adapter
from issun.runtime import Adapter, Model
from tests.adapters import peft_adapter
from tests.families.conftest import KINDS, Made

IDS = np.random.default_rng(0).integers(5, 3400, 70).tolist()

pytestmark = pytest.mark.parametrize("name", KINDS)


@pytest.mark.sampled
def test_in_float32_the_logits_are_those_of_the_merged_model(
    made: Made, source: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    adapter = peft_adapter(source(name), tmp_path / "adapter")
    bundle = made(name, "float32", "float32")
    make_adapter(bundle, adapter, tmp_path / "a1")
    options = ExportOptions(precision="float32", adapters=(AdapterSource(str(adapter), 0.5),))
    export(source(name), tmp_path / "merged", options)
    half = Adapter(tmp_path / "a1", weight=0.5)
    with (
        Model.load(bundle, threads=1, adapters=[half]) as beside,
        Model.load(tmp_path / "merged", threads=1) as merged,
    ):
        expected = merged.score(IDS)
        assert np.abs(beside.score(IDS) - expected).max() > 0.01
        assert np.abs(beside.score(IDS, adapter="a1") - expected).max() < 1e-4


@pytest.mark.sampled
def test_in_int8_a_weight_of_zero_changes_nothing(
    made: Made, source: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    bundle = made(name)
    make_adapter(bundle, peft_adapter(source(name), tmp_path / "adapter"), tmp_path / "a1")
    adapters = [Adapter(tmp_path / "a1", "none", 0.0), Adapter(tmp_path / "a1", "all")]
    with Model.load(bundle, threads=1, adapters=adapters) as model:
        for ids in (IDS, IDS[:1]):
            assert np.array_equal(model.score(ids, adapter="none"), model.score(ids))
        assert np.abs(model.score(IDS, adapter="all") - model.score(IDS)).max() > 0.01
