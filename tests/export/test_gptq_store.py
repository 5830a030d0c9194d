"""An interrupted GPTQ export resumes with the layers that it has finished, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from issun.export import ExportOptions, export
from issun.export.errors import TargetError
from issun.export.gptq_store import GPTQStore, open_gptq_store
from issun.export.quantize import Quantized

GPTQ = ExportOptions(precision="int4")
MADE = Quantized(np.ones((2, 1, 8), np.uint8), np.ones((2, 1), np.float32))


def stop_after_one_layer(stage: str, done: int, total: int) -> None:
    """A progress callback: interrupts the export of three layers after the first."""
    if stage == "calibrate" and 3 * (done + 1) > total:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_export_resumes_with_the_same_result(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("head-8")
    whole = export(source, tmp_path / "whole", GPTQ)
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "b", GPTQ, progress=stop_after_one_layer)
    assert not (tmp_path / "b").exists()
    notices: list[Any] = []
    again = export(source, tmp_path / "b", GPTQ, notify=lambda t, **v: notices.append(v))
    assert {"count": 4} in notices
    assert again.files == whole.files
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "b"}


@pytest.mark.slow
def test_another_text_starts_over(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source, text = checkpoint("head-8"), tmp_path / "text"
    text.write_text("吾輩は猫である。名前はまだ無い。" * 40, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "b", GPTQ, progress=stop_after_one_layer)
    notices: list[Any] = []
    options = ExportOptions(precision="int4", calibrate=text)
    export(source, tmp_path / "b", options, notify=lambda t, **v: notices.append(v))
    assert not any("count" in values for values in notices)


@pytest.mark.slow
def test_an_export_without_gptq_removes_the_store(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("head-8")
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "b", GPTQ, progress=stop_after_one_layer)
    export(source, tmp_path / "b", ExportOptions())
    assert {path.name for path in tmp_path.iterdir()} == {"b"}


def test_a_damaged_file_is_recomputed(tmp_path: Path) -> None:
    store = GPTQStore(tmp_path, "key")
    store.get_or_create("h.0", lambda: MADE)
    (kept,) = tmp_path.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:-30])
    made = []

    def make() -> Quantized:
        made.append(1)
        return MADE

    assert np.array_equal(store.get_or_create("h.0", make)().values, MADE.values)
    assert made == [1]
    store.get_or_create("h.0", make)
    assert made == [1]
    assert len(GPTQStore(tmp_path, "another key")) == 0


def test_two_exports_cannot_share_a_store(tmp_path: Path) -> None:
    with (
        open_gptq_store(tmp_path / "b", "key", lambda t, **v: None),
        pytest.raises(TargetError, match="Another export"),
        open_gptq_store(tmp_path / "b", "key", lambda t, **v: None),
    ):
        pass
