"""Mixed precision: the choice for each linear layer within a size or a divergence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.benchmarks.divergence import mean_kl, score_windows
from issun.export import ExportOptions, export
from issun.export.calibrate import WINDOW, calibration_text
from issun.export.errors import CheckpointError
from issun.export.mixed import check_budget, choose_precisions, linear_bytes
from issun.runtime import Model, ParameterError
from issun.runtime.manifest import read_manifest

SHAPES = {"a": (128, 128), "b": (128, 128), "c": (128, 256)}
SENSITIVITIES: Any = {
    "a": {"int4": 8.0, "int8": 1.0},
    "b": {"int4": 2.0, "int8": 0.5},
    "c": {"int4": 8.0, "int8": 1.0},
}


def test_sizes_by_hand() -> None:
    assert linear_bytes(256, 3, "float32") == 3 * 256 * 4
    assert linear_bytes(256, 3, "int8") == 3 * 256 + 3 * 4
    assert linear_bytes(256, 3, "int4") == 3 * 2 * (64 + 4)
    assert linear_bytes(200, 3, "int4") == 3 * 2 * (64 + 4)  # the last block is padded


def test_the_largest_gain_per_byte_comes_first() -> None:
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=100) == {
        "a": "int4",
        "b": "int4",
        "c": "int4",
    }
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=17) == {
        "a": "int8",
        "b": "int4",
        "c": "int4",
    }
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=5) == {
        "a": "int8",
        "b": "int4",
        "c": "int8",
    }
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=0) == dict.fromkeys("abc", "float32")


def test_extra_bytes_are_used_and_not_exceeded() -> None:
    one = linear_bytes(128, 128, "int8") - linear_bytes(128, 128, "int4")
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=0, extra_bytes=0) == dict.fromkeys(
        "abc", "int4"
    )
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=0, extra_bytes=one) == {
        "a": "int8",
        "b": "int4",
        "c": "int4",
    }
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=0, extra_bytes=2 * one) == {
        "a": "int8",
        "b": "int8",
        "c": "int4",
    }
    assert choose_precisions(SENSITIVITIES, SHAPES, max_error=0, extra_bytes=3 * one) == {
        "a": "int8",
        "b": "int4",
        "c": "int8",
    }


def test_a_narrow_linear_is_no_smaller_in_4_bits() -> None:
    narrow = {"a": (64, 64)}  # its one block of 128 is padded
    assert linear_bytes(64, 64, "int8") == linear_bytes(64, 64, "int4")
    moves: Any = {"a": {"int4": 8.0, "int8": 1.0}}
    assert choose_precisions(moves, narrow, max_error=0, extra_bytes=0) == {"a": "int8"}


@pytest.fixture(scope="module")
def small(
    ja_small: Callable[..., Path], shared: Path
) -> tuple[Path, np.ndarray[Any, Any], list[int]]:
    """The small trained model: its checkpoint, float32 logits for part of the text, and the ids."""
    with Model.load(ja_small("float32")) as model:
        ids = model.tokenizer.encode(calibration_text())[: 4 * WINDOW]
        return shared / "checkpoints" / "ja-small", score_windows(model, ids), ids


def divergence(bundle: Path, reference: np.ndarray[Any, Any], ids: list[int]) -> float:
    with Model.load(bundle) as model:
        return mean_kl(reference, score_windows(model, ids))


@pytest.mark.slow
def test_max_kl_is_met_and_smaller_bundles_diverge_more(
    tmp_path: Path, small: tuple[Path, np.ndarray[Any, Any], list[int]]
) -> None:
    source, reference, ids = small
    sizes, found = [], []
    for most in (0.0035, 0.001, 0.0004):
        bundle = tmp_path / str(most)
        manifest = export(source, bundle, ExportOptions(max_kl=most))
        assert manifest.precision.name == "mixed"
        kinds = manifest.precision.by_linear
        assert len(kinds) == 4 * manifest.architecture.n_layer
        assert set(kinds.values()) <= {"float32", "int8", "int4"}
        sizes.append((bundle / "model.onnx.data").stat().st_size)
        found.append(divergence(bundle, reference, ids))
        # The windows differ from those of the export, every other of which starts with a prompt.
        assert found[-1] < 1.5 * most
    assert sizes == sorted(sizes)
    assert found == sorted(found, reverse=True)
    assert sizes[0] < sizes[-1]


@pytest.mark.slow
def test_a_budget_is_met_and_used(
    tmp_path: Path, small: tuple[Path, np.ndarray[Any, Any], list[int]]
) -> None:
    source, reference, ids = small
    found = []
    for megabytes in (13, 16, 19):
        bundle = tmp_path / str(megabytes)
        export(source, bundle, ExportOptions(budget=megabytes * 10**6, kv_cache="int8"))
        size = (bundle / "model.onnx.data").stat().st_size
        assert 0.93 * megabytes * 10**6 < size <= megabytes * 10**6
        found.append(divergence(bundle, reference, ids))
    assert found == sorted(found, reverse=True)
    assert read_manifest(bundle).precision.linears.startswith("int4 for")


@pytest.mark.parametrize(
    ("budget", "least", "parts"),
    [
        (600_000_000, 1_310_000_000, ("needs 1,310 MB with", "the budget of 600 MB.")),
        (20_000, 900_000, ("needs 900 kB with", "the budget of 20 kB.")),
        (999, 10**6, ("needs 1 MB with", "the budget of 999 bytes.")),
    ],
)
def test_a_budget_that_is_too_small_is_named_in_its_unit(
    budget: int, least: int, parts: tuple[str, str]
) -> None:
    with pytest.raises(CheckpointError, match=".*".join(map(re.escape, parts))):
        check_budget(budget, least)


@pytest.mark.slow
def test_impossible_limits_are_refused(tmp_path: Path, shared: Path) -> None:
    source = shared / "checkpoints" / "ja-small"
    with pytest.raises(CheckpointError, match="with all linear layers in int4"):
        export(source, tmp_path / "a", ExportOptions(budget=10**6))
    with pytest.raises(CheckpointError, match="is not possible"):
        export(source, tmp_path / "b", ExportOptions(max_kl=1e-12))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"budget": 1, "max_kl": 1.0}, "not both"),
        ({"max_kl": 0.0}, "above 0"),
        ({"max_kl": float("nan")}, "above 0"),
        ({"max_kl": 0.1, "gptq": True, "precision": "int4"}, "GPTQ or Optimum"),
        ({"budget": 10, "via": "optimum"}, "GPTQ or Optimum"),
    ],
)
def test_options_that_contradict_each_other(options: Any, part: str) -> None:
    with pytest.raises(ParameterError, match=part):
        ExportOptions(**options)
