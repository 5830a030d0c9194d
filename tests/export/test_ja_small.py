"""What calibration makes of a trained GPT-2 must not change without notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.benchmarks.divergence import Logits, mean_kl, score_windows
from issun.export import ExportOptions, export
from issun.export.kinds import Precision
from issun.runtime import Model
from issun.runtime.manifest import sha256_of
from tests.conftest import Bundles

# Measured on 2026-11-29, when the calibration text became broad.
DIVERGENCES: dict[tuple[Precision, bool | None], float] = {
    ("int8", None): 0.000126,
    ("int4", False): 0.003509,
    ("int4", True): 0.001104,
}
MARGIN = 1.03


def test_float32_weights_have_their_recorded_hash(ja_small: Bundles) -> None:
    digest = sha256_of(ja_small("float32") / "model.onnx.data")
    assert digest.startswith("4232fcf4e8f39fee")


def logits(bundle: Path, text: str) -> Logits:
    with Model.load(bundle, keep_packed=False) as model:
        return score_windows(model, model.tokenizer.encode(text))


@pytest.fixture(scope="module")
def text(shared: Path) -> str:
    return (shared / "data" / "text" / "novel-eval.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def exact(ja_small: Bundles, text: str) -> Logits:
    return logits(ja_small("float32"), text)


@pytest.mark.slow
@pytest.mark.parametrize("case", DIVERGENCES)
def test_divergence_is_no_larger_than_recorded(
    shared: Path, tmp_path: Path, text: str, exact: Logits, case: tuple[Precision, bool | None]
) -> None:
    precision, gptq = case
    source = shared / "checkpoints" / "ja-small"
    export(source, tmp_path / "b", ExportOptions(precision=precision, gptq=gptq))
    found = mean_kl(exact, logits(tmp_path / "b", text))
    assert found <= MARGIN * DIVERGENCES[case]
