"""A cache of packed weights of the test's own, for small bundles too, and a bundle to harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.runtime import weight_cache
from issun.runtime.weight_cache import WeightCache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightCache:
    monkeypatch.setenv("ISSUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_cache, "LEAST", 0)
    found = weight_cache.default_cache()
    assert found is not None
    return found


@pytest.fixture
def folder(bundle: Callable[..., Path], tmp_path: Path) -> Path:
    return shutil.copytree(bundle("head-20-width-100"), tmp_path / "bundle")
