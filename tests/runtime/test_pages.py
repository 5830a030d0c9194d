"""Dropping the pages that a session maps, and no others."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issun.runtime import Model
from issun.runtime.decoding import decoder
from issun.runtime.weights.pages import track_mappings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped")


def resident(path: Path) -> int:
    """Return the resident KiB of `path` in this process."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def mapping(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)


def test_pages_mapped_in_a_block_are_dropped_and_read_again(file: Path) -> None:
    with track_mappings({file}) as pages:
        inside = mapping(file)
        content = inside[:]
    assert resident(file) == 1024
    pages.drop(min_bytes=1 << 21)
    assert resident(file) == 1024
    pages.drop()
    assert resident(file) == 0
    assert inside[:] == content


def test_earlier_and_modified_mappings_are_kept(file: Path) -> None:
    before = mapping(file)
    before[:]
    with track_mappings({file}) as pages:
        changed = mapping(file)
        changed[5000] = 7
    pages.drop()
    assert resident(file) == 1024 + 4
    assert changed[5000] == 7


def test_a_long_prompt_leaves_no_embedding_in_memory(
    bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle("vocab-8011", "int4")
    table = 8011 * 128  # bytes
    ids = [int(i) for i in np.random.default_rng(0).integers(7, 8000, 60)]
    found = []
    with Model.load(folder, threads=1) as model:
        for least in (2 * table, table):
            monkeypatch.setattr(decoder, "_MIN_TABLE_BYTES", least)
            logits = model.score(ids)
            found.append((resident(folder / "model.onnx.data"), logits))
    (kept, before), (left, after) = found
    assert kept - left > 0.5 * table / 1024
    assert np.array_equal(before, after)
