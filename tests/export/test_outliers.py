"""int8 and int4 of checkpoints with outliers, compared with float32 of the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from issun.benchmarks.divergence import Logits, losses_of, mean_kl, score_windows
from issun.export import ExportOptions, export
from issun.export.kinds import PRECISIONS, Uniform
from issun.export.outliers import find_outlier_channels
from issun.export.quantization_loss import product_loss
from issun.runtime import Model
from issun.runtime.decoding.distributions import log_softmax
from tests.outliers import HardCheckpoint

pytestmark = pytest.mark.slow
BYTES = 6_000
OUTPUT = np.ones((300, 64), np.float32)


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


def quantized(checkpoint: Path, precision: Uniform, text: str, folder: Path) -> Logits:
    """The logits of a bundle with default settings: int4 is fitted with GPTQ."""
    export(checkpoint, folder / precision, ExportOptions(precision=precision))
    return logits(folder / precision, text)[0]


@pytest.fixture(scope="module")
def unchanged(
    ja_small: Path, text: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Logits, list[int], dict[str, float]]:
    """ja-small's float32 logits and ids, and the divergence of each precision from them."""
    folder = tmp_path_factory.mktemp("unchanged")
    export(ja_small, folder / "float32", ExportOptions(precision="float32"))
    exact, ids = logits(folder / "float32", text)
    kl = {p: mean_kl(exact, quantized(ja_small, p, text, folder)) for p in PRECISIONS[1:]}
    return exact, ids, kl


def perplexity(found: Logits, ids: list[int]) -> float:
    return float(np.exp(losses_of(log_softmax(found[:511]), ids[1:512]).mean()))


@pytest.fixture(scope="module", params=["outlier_channels", "constant", "varying"])
def hard(
    request: pytest.FixtureRequest,
    ja_small: Path,
    unchanged: tuple[Logits, list[int], dict[str, float]],
    text: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Logits]:
    """A changed checkpoint, and its float32 logits."""
    folder = tmp_path_factory.mktemp(request.param)
    before, ids, _ = unchanged
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
    return checkpoint, after


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_outliers_do_no_harm(
    hard: tuple[Path, Logits],
    precision: Uniform,
    text: str,
    unchanged: tuple[Logits, list[int], dict[str, float]],
    tmp_path: Path,
) -> None:
    checkpoint, exact = hard
    _, _, plain = unchanged
    found = mean_kl(exact, quantized(checkpoint, precision, text, tmp_path))
    assert found < 1.5 * plain[precision]


def test_outlier_channels_are_found() -> None:
    loss = product_loss("int8")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 256)).astype(np.float32)
    weight = rng.normal(size=(256, 64)).astype(np.float32)
    assert find_outlier_channels(inputs, weight, OUTPUT, loss) is None
    inputs[:, 17] += 300
    weight[17] /= 300
    found = find_outlier_channels(inputs, weight, OUTPUT, loss)
    assert found is not None
    assert list(found) == [17]
    inputs[:, 3] *= 100
    weight[3] /= 100
    found = find_outlier_channels(inputs, weight, OUTPUT, loss)
    assert found is not None
    assert list(found) == [3, 17]


def test_channels_of_a_gated_mlp_must_gain_much() -> None:
    rng, loss = np.random.default_rng(0), product_loss("int8")
    inputs = rng.normal(size=(300, 256)).astype(np.float32)
    weight = rng.normal(size=(256, 64)).astype(np.float32)
    inputs[:, 17] *= 20
    changes = [
        find_outlier_channels(inputs, weight, size * OUTPUT, loss, min_gain=3e-5)
        for size in (100, 1000)
    ]
    assert changes[0] is not None  # beside a larger output the same error is not worth it
    assert list(changes[0]) == [17]
    assert changes[1] is None


def test_nan_inputs_give_no_outlier_channels() -> None:
    loss = product_loss("int8")
    inputs = np.full((4, 8), np.nan, np.float32)
    assert find_outlier_channels(inputs, np.ones((8, 3), np.float32), np.ones((4, 3)), loss) is None
