"""Errors of the Optimum route without its packages; its other tests are in tests/parity."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from issun.benchmarks.make_checkpoint import make_checkpoint
from issun.benchmarks.shapes import SHAPES
from issun.export import CheckpointError, ExportOptions, MissingExtraError, export
from issun.runtime import ParameterError


@pytest.mark.parametrize("missing", ["torch", "transformers", "onnx", "optimum.exporters.onnx"])
def test_missing_package_is_an_error_before_any_work(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    def find(name: str) -> object:
        if name == missing and "." in name:
            raise ModuleNotFoundError(
                name.partition(".")[0]
            )  # as find_spec does for a missing parent package
        return None if name == missing else find_spec("pytest")

    monkeypatch.setattr("issun.export.optimum.find_spec", find)
    with pytest.raises(MissingExtraError, match=r"pip install \"issun\[optimum\]\""):
        export(
            checkpoint("head-8"),
            tmp_path / "bundle",
            ExportOptions(precision="int8", via="optimum"),
        )
    assert list(tmp_path.iterdir()) == []


def test_int4_and_int8_kv_are_refused() -> None:
    with pytest.raises(ParameterError, match="int4"):
        ExportOptions(precision="int4", via="optimum")
    with pytest.raises(ParameterError, match="int8 KV cache"):
        ExportOptions(kv_cache="int8", via="optimum")


@pytest.mark.parametrize("family", ["gpt-neox", "llama", "qwen3"])
def test_other_families_are_refused_before_any_work(family: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "tiny", SHAPES[family]["tiny"])
    named = str(SHAPES[family]["tiny"]["model_type"])
    with pytest.raises(CheckpointError, match=f"exports gpt2 only, and the model is {named}"):
        export(
            tmp_path / "tiny",
            tmp_path / "bundle",
            ExportOptions(precision="int8", via="optimum"),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
