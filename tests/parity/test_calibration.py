"""Calibration of every family: a block's own graph, and factors that are exact in float32."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from issun.benchmarks.divergence import Logits
from issun.export import ExportOptions, export
from issun.export.calibrate import calibrate
from issun.export.checkpoint import open_checkpoint
from issun.export.graph import build_graph
from issun.export.lazy import CheckpointWeights
from issun.export.observe import Block
from issun.export.smoothing import PLACES
from issun.export.weights import Array
from issun.runtime.decoding.decoder import IssunDecoder
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.session import make_options, session_of
from tests.parity import checkpoints

pytestmark = pytest.mark.parity

NAMES = [
    "gpt2",
    "gpt2-scaled-by-layer",
    "neox-sequential-whole",
    "neox-parallel-quarter",
    "neox-head-20-tied",
    "neox-no-attention-bias",
    "llama",
    "llama-biases",
    "llama-head-20-tied",
    "mistral-window",
    "qwen2-window-tied",
    "qwen3",
    "qwen3-head-24-bias",
]
WINDOWS = np.random.default_rng(3).integers(7, 400, (4, 60))


@pytest.fixture(scope="module", params=NAMES)
def saved(
    request: pytest.FixtureRequest,
    ref: ModuleType,
    spiece: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[object, Path]:
    """A random model of transformers, and its checkpoint."""
    model = checkpoints.make(request.param)
    folder = tmp_path_factory.mktemp("calibration") / request.param
    return model, checkpoints.save(model, folder, spiece)


def weights_of(folder: Path) -> CheckpointWeights:
    opened = open_checkpoint(folder)
    return CheckpointWeights(opened.network, opened.tensors, "float32")


def logits(weights: CheckpointWeights) -> Logits:
    model = ir.to_proto(build_graph(weights.network, weights)).SerializeToString()
    decoder = IssunDecoder(session_of(model, make_options(1)), weights.network.architecture())
    return np.concatenate(list(decoder.score(decoder.new_cache(), WINDOWS[0].tolist())))


def _spread(factor: Array | None) -> float:
    """The largest logarithm of a block's factors at one place."""
    return 0.0 if factor is None else float(np.abs(np.log(factor)).max())


def test_blocks_have_the_hidden_states_of_transformers(saved: tuple[object, Path]) -> None:
    import torch

    model, folder = saved
    assert callable(model)
    with torch.no_grad():
        states = model(torch.tensor(WINDOWS), output_hidden_states=True).hidden_states
    weights = weights_of(folder)
    x = weights.embed(WINDOWS)
    for layer in range(weights.network.n_layer - 1):  # the last state is after the final norm
        x = Block(weights, layer).run(x).output
        np.testing.assert_allclose(x, states[layer + 1].numpy(), rtol=1e-4, atol=1e-4)


def test_factors_are_exact_in_float32(saved: tuple[object, Path]) -> None:
    plain, smooth = weights_of(saved[1]), weights_of(saved[1])
    network = plain.network
    largest = []
    recorded = smooth.smooth

    def record(layer: int, factors: object) -> None:
        largest.append(max(_spread(getattr(factors, place)) for place in PLACES))
        recorded(layer, factors)  # type: ignore[arg-type]

    smooth.smooth = record  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("issun.export.calibrate.WINDOW", WINDOWS.shape[1])
        patch.setattr("issun.export.calibrate.worthwhile_factors", lambda factors, *_: factors)
        calibrate(smooth, WINDOWS.ravel().tolist(), smooth_for="int8")
    assert len(largest) == network.n_layer
    assert max(largest) > 0.1
    assert np.abs(logits(smooth) - logits(plain)).max() < 2e-4


@pytest.mark.slow
def test_limits_are_met_by_mixed_precision(ref: ModuleType, spiece: Path, tmp_path: Path) -> None:
    source = checkpoints.save(checkpoints.make("llama"), tmp_path / "source", spiece)
    export(source, tmp_path / "int4", ExportOptions(precision="int4"))
    export(source, tmp_path / "kl", ExportOptions(max_kl=0.01))
    kinds = read_manifest(tmp_path / "kl").precision.by_linear
    assert len(kinds) == 5 * 3
    least = (tmp_path / "int4" / "model.onnx.data").stat().st_size
    budget = least + 300_000
    export(source, tmp_path / "budget", ExportOptions(budget=budget))
    assert least < (tmp_path / "budget" / "model.onnx.data").stat().st_size <= budget
