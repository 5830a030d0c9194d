"""Fixtures for comparisons with torch and transformers, which skip if these are missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from issun.export import ExportOptions, export
from tests.conftest import Bundles
from tests.recordings import TEXTS, lines_of


@pytest.fixture(scope="session")
def ref() -> ModuleType:
    """The module `tests.reference`, which needs torch and transformers."""
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f'{name} is not installed: pip install "issun[optimum]"')
    from tests import reference

    return reference


@pytest.fixture(scope="session")
def source(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Bundles:
    """`source(name)`: the folder of a checkpoint of SHAPES, or of ja-small."""

    def find(name: str) -> Path:
        if name != "ja-small":
            return checkpoint(name)
        shared: Path = request.getfixturevalue("shared")
        return shared / "checkpoints" / "ja-small"

    return find


@pytest.fixture(scope="session")
def optimum(ref: ModuleType, source: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """`optimum(name, precision)`: a bundle exported with Optimum."""
    pytest.importorskip(
        "optimum.exporters.onnx",
        reason='optimum-onnx is not installed: pip install "issun[optimum]"',
    )
    folder = tmp_path_factory.mktemp("optimum")

    def make(name: str, precision: str) -> Path:
        target = folder / f"{name}-{precision}"
        if not target.exists():
            options = ExportOptions(precision=precision, via="optimum")  # type: ignore[arg-type]
            export(source(name), target, options)
        return target

    return make


@pytest.fixture(scope="session")
def lines(shared: Path) -> list[str]:
    """Every line of the texts in the test data."""
    return [line for name in TEXTS for line in lines_of(shared / "data" / "text" / name)]
