"""A GPTQ export that was stopped goes on, with what it had fitted and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export import ExportOptions, export
from issun.export.errors import TargetError
from issun.export.fitted import FittedStore, fitted_store
from issun.export.quantize import Quantized

GPTQ = ExportOptions(precision="int4", gptq=True)
MADE = Quantized(np.ones((2, 1, 8), np.uint8), np.ones((2, 1), np.float32))


def stopping(after: int) -> Callable[[str, int, int], None]:
    """Progress that ends the export once so many layers are calibrated."""
    layers = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal layers
        layers += stage == "calibrate"
        if layers == after:
            raise KeyboardInterrupt

    return progress


def test_a_stopped_export_goes_on_and_comes_to_the_same(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("head-8")
    whole = export(source, tmp_path / "whole", GPTQ)
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "b", GPTQ, progress=stopping(1))
    assert not (tmp_path / "b").exists()
    told: list[Any] = []
    again = export(source, tmp_path / "b", GPTQ, notify=lambda t, **v: told.append(v))
    assert {"count": 4} in told
    assert again.files == whole.files
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "b"}


def test_another_text_begins_anew(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source, text = checkpoint("head-8"), tmp_path / "text"
    text.write_text("吾輩は猫である。名前はまだ無い。" * 40, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "b", GPTQ, progress=stopping(1))
    told: list[Any] = []
    options = ExportOptions(precision="int4", gptq=True, calibrate=text)
    export(source, tmp_path / "b", options, notify=lambda t, **v: told.append(v))
    assert not any("count" in values for values in told)


def test_an_export_without_gptq_clears_what_one_with_it_has_left(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("head-8")
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "b", GPTQ, progress=stopping(1))
    export(source, tmp_path / "b", ExportOptions())
    assert {path.name for path in tmp_path.iterdir()} == {"b"}


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    store = FittedStore(tmp_path, "key")
    store.keep("h.0", lambda: MADE)
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-30])
    made = []

    def make() -> Quantized:
        made.append(1)
        return MADE

    assert np.array_equal(store.keep("h.0", make)().values, MADE.values)
    assert made == [1]
    store.keep("h.0", make)
    assert made == [1]
    assert len(FittedStore(tmp_path, "another key")) == 0


def test_two_exports_do_not_share_it(tmp_path: Path) -> None:
    with (
        fitted_store(tmp_path / "b", "key", lambda t, **v: None),
        pytest.raises(TargetError, match="Another export"),
        fitted_store(tmp_path / "b", "key", lambda t, **v: None),
    ):
        pass
