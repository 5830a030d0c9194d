"""int8 on an emulated CPU without VNNI gives the logits of exact sums, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.runtime.decoding.distributions import log_softmax, row_kl
from tests.families.conftest import KINDS, Made
from tests.runtime.test_cpu import exact, pytestmark, score_emulated

__all__ = ["pytestmark"]


@pytest.mark.slow
def test_logits_are_those_of_exact_sums(made: Made, tmp_path: Path) -> None:
    bundles = [made(name, "int8", "float32") for name in KINDS]
    saturates, emulated = score_emulated("Haswell-noTSX", bundles, tmp_path / "logits.npz")
    assert saturates == "True"
    for name, path, theirs in zip(KINDS, bundles, emulated, strict=True):
        ours = exact(path)
        assert row_kl(log_softmax(ours), log_softmax(theirs)).mean() <= 0.0005, name
