"""int8 and int4 of a trained Llama, as it is and with outliers, compared with float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from issun.benchmarks.divergence import WINDOW as CONTRACT_WINDOW
from issun.benchmarks.divergence import Logits, mean_kl
from issun.export import calibrate
from issun.export.canonical import canonical_tensors
from issun.export.config import read_config
from issun.export.graph import build_graph
from issun.export.kinds import Kind, Precision
from issun.export.lazy import CheckpointWeights
from issun.export.mixed import ladder
from issun.export.tensors import find_tensors
from issun.export.weights import open_weights
from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.weights.session import make_options, session_of
from tests.outliers import write_hard_llama

pytestmark = pytest.mark.slow
START = 256  # the id of the start token; the others are bytes
BOUNDS = {("int8", False): 0.0003, ("int4", True): 0.002}


@pytest.fixture(scope="module", params=["as trained", "hard"])
def folder(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    trained = shared / "checkpoints" / "tiny-llama"
    if request.param == "as trained":
        return trained
    return write_hard_llama(trained, tmp_path_factory.mktemp("hard") / "checkpoint")


@pytest.fixture(scope="module")
def text(shared: Path) -> bytes:
    return (shared / "data" / "text" / "novel-eval.txt").read_bytes()


@pytest.fixture(scope="module")
def ids(shared: Path) -> list[int]:
    """12 windows of 160 ids to calibrate on."""
    raw = (shared / "data" / "text" / "instruction_ja.jsonl").read_bytes()
    return [i for start in range(0, 60_000, 5000) for i in (START, *raw[start : start + 159])]


def weights_of(folder: Path, precision: Precision) -> CheckpointWeights:
    family, network = read_config(folder)
    stored = find_tensors(open_weights(folder)[0], family, folder).tensors
    return CheckpointWeights(network, canonical_tensors(stored, family, network), precision)


def calibrated(
    folder: Path, precision: Precision, ids: Sequence[int], *, kind: Kind, gptq: bool = False
) -> tuple[CheckpointWeights, calibrate.Calibrated]:
    weights = weights_of(folder, precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "WINDOW", 160)
        held_out = ids[:160] if precision == "mixed" else ()
        found = calibrate.calibrate(weights, ids, smooth_for=kind, gptq=gptq, held_out=held_out)
        return weights, found


def logits(weights: CheckpointWeights, windows: Sequence[Sequence[int]]) -> Logits:
    model = ir.to_proto(build_graph(weights.network, weights)).SerializeToString()
    decoder = IssunDecoder(session_of(model, make_options()), weights.network.architecture())
    cache, found = decoder.new_cache(), []
    for window in windows:
        cache.rewind(0)
        found += decoder.score(cache, window)
    return np.concatenate(found)


@pytest.mark.parametrize(("precision", "gptq"), BOUNDS)
def test_divergence_of_a_trained_llama(
    folder: Path, text: bytes, ids: list[int], precision: Kind, gptq: bool
) -> None:
    weights, _ = calibrated(folder, precision, ids, kind=precision, gptq=gptq)
    exact, windows = weights_of(folder, "float32"), [[START, *text[:400]]]
    found = mean_kl(logits(exact, windows), logits(weights, windows))
    # As for GPT-2: 20,000 bytes in windows of 512 without a start token.
    windows = [list(text[i : i + CONTRACT_WINDOW]) for i in range(0, 20_000, CONTRACT_WINDOW)]
    whole = mean_kl(logits(exact, windows), logits(weights, windows))
    print(f"KL {found:.6f}; over 20,000 bytes, without a start token {whole:.6f}")
    assert found <= BOUNDS[precision, gptq]


def test_smoothing_does_no_harm_in_int4(folder: Path, text: bytes, ids: list[int]) -> None:
    windows = [[START, *text[i : i + 400]] for i in range(3000, 63_000, 3000)]
    exact = logits(weights_of(folder, "float32"), windows)
    plain = mean_kl(exact, logits(weights_of(folder, "int4"), windows))
    weights, _ = calibrated(folder, "int4", ids, kind="int4")
    assert mean_kl(exact, logits(weights, windows)) <= plain


def test_few_layers_of_a_gated_mlp_have_outlier_channels(folder: Path, ids: list[int]) -> None:
    weights, _ = calibrated(folder, "int4", ids, kind="int4")
    found = [weights.outlier_channels(f"h.{layer}.down") for layer in range(4)]
    assert [channels is not None for channels in found] == [True, False, False, False]


def test_mixed_precision_trades_size_for_divergence(
    folder: Path, text: bytes, ids: list[int]
) -> None:
    weights, found = calibrated(folder, "mixed", ids, kind="int4")
    names = found.sensitivities
    assert {name.rpartition(".")[2] for name in names} == {"qkv", "out", "gate", "up", "down"}
    shapes = {name: weights.linear_shape(f"{name}.weight") for name in names}
    windows = [[START, *text[:400]]]
    exact = logits(weights_of(folder, "float32"), windows)
    divergences = []
    mixtures = ladder(names, shapes)
    for part in (0.0, 0.3, 0.6):
        weights.kinds = mixtures[int(part * len(mixtures))]
        divergences.append(mean_kl(exact, logits(weights, windows)))
    assert divergences[0] > 1.5 * divergences[1] > 1.5 * 1.5 * divergences[2]
