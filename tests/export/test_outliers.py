"""int8 and int4 of checkpoints with outliers, compared with float32 of the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from issun.benchmarks.divergence import Logits, losses_of, mean_kl, score_windows
from issun.export import ExportOptions, export
from issun.export.lazy import Precision
from issun.export.outliers import find_outlier_channels
from issun.export.quantization_loss import product_loss
from issun.runtime import Model
from issun.runtime.distributions import log_softmax
from tests.outliers import HardCheckpoint

pytestmark = pytest.mark.slow
BYTES = 6_000
# The bounds are those of unchanged ja-small on the whole text, with a margin for using only part
# of it; massive activations may cost three times as much.
BOUNDS = {"int8": 0.0004, "int4": 0.003}


@pytest.fixture(scope="module")
def ja_small(shared: Path) -> Path:
    return shared / "checkpoints" / "ja-small"


@pytest.fixture(scope="module")
def text(shared: Path) -> str:
    raw = (shared / "data" / "text" / "novel-eval.txt").read_bytes()[:BYTES]
    return raw.decode("utf-8", "ignore")


def logits(bundle: Path, text: str) -> tuple[Logits, list[int]]:
    with Model.load(bundle, keep_packed=False) as model:
        ids = model.tokenizer.encode(text)
        return score_windows(model, ids), ids


def perplexity(found: Logits, ids: list[int]) -> float:
    return float(np.exp(losses_of(log_softmax(found[:511]), ids[1:512]).mean()))


@pytest.fixture(scope="module", params=["outlier_channels", "constant", "varying"])
def hard(
    request: pytest.FixtureRequest,
    ja_small: Path,
    text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path, Logits]:
    """The name of the change, the changed checkpoint, and its float32 logits."""
    folder = tmp_path_factory.mktemp(request.param)
    export(ja_small, folder / "before", ExportOptions(precision="float32"))
    before, ids = logits(folder / "before", text)
    changed = HardCheckpoint(ja_small)
    if request.param == "varying":
        changed.varying(ids[:512])
    else:
        getattr(changed, request.param)()
    checkpoint = changed.write(folder / "checkpoint")
    export(checkpoint, folder / "float32", ExportOptions(precision="float32"))
    after, _ = logits(folder / "float32", text)
    if request.param == "outlier_channels":
        assert mean_kl(before, after) < 1e-6
    else:
        assert abs(perplexity(after, ids) / perplexity(before, ids) - 1) < 0.02
    return request.param, checkpoint, after


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_outliers_do_no_harm(
    hard: tuple[str, Path, Logits],
    precision: Precision,
    text: str,
    shared: Path,
    tmp_path: Path,
) -> None:
    name, checkpoint, exact = hard
    options = ExportOptions(
        precision=precision,
        gptq=precision == "int4",
        calibrate=shared / "data" / "text" / "novel-train.txt" if precision == "int4" else None,
    )
    export(checkpoint, tmp_path / "b", options)
    found, _ = logits(tmp_path / "b", text)
    assert mean_kl(exact, found) < BOUNDS[precision] * (1 if name == "outlier_channels" else 3)


def test_outlier_channels_are_found() -> None:
    loss = product_loss("int8")
    assert loss is not None
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 256)).astype(np.float32)
    weight = rng.normal(size=(256, 64)).astype(np.float32)
    assert find_outlier_channels(inputs, weight, loss) is None
    inputs[:, 17] += 300
    weight[17] /= 300
    found = find_outlier_channels(inputs, weight, loss)
    assert found is not None
    assert list(found) == [17]
    inputs[:, 3] *= 100
    weight[3] /= 100
    found = find_outlier_channels(inputs, weight, loss)
    assert found is not None
    assert list(found) == [3, 17]


def test_nan_inputs_give_no_outlier_channels() -> None:
    loss = product_loss("int8")
    assert loss is not None
    inputs = np.full((4, 8), np.nan, np.float32)
    assert find_outlier_channels(inputs, np.ones((8, 3), np.float32), loss) is None
