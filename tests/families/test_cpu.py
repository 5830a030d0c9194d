"""int8 on an emulated CPU without VNNI gives the logits of this machine, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax, row_kl
from tests.families.conftest import KINDS, Made
from tests.runtime.test_cpu import IDS, machine_with_vnni, pytestmark, score_emulated

__all__ = ["machine_with_vnni", "pytestmark"]


@pytest.mark.slow
def test_logits_equal_this_machine_s(made: Made, tmp_path: Path) -> None:
    bundles = [made(name, "int8", "float32") for name in KINDS]
    saturates, emulated = score_emulated(
        "Haswell-noTSX", bundles, tmp_path / "logits.npz", option="on"
    )
    assert saturates == "True"
    for name, path, theirs in zip(KINDS, bundles, emulated, strict=True):
        with Model.load(path, threads=1) as model:
            ours = model.score(IDS)
        assert row_kl(log_softmax(ours), log_softmax(theirs)).mean() <= 0.0005, name
