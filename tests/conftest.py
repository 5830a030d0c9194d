"""Shared fixtures: checkpoints, and bundles that are exported once per session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from issun.benchmarks.small_tokenizers import train_tokenizer
from issun.export import ExportOptions, export
from tests.checkpoints import SHAPES, write_checkpoint

ROOT = Path(__file__).parent.parent

# Property tests open sessions, so they have no deadline; CI repeats the same examples.
settings.register_profile("issun", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("issun")
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# (name or precision, ...) -> a bundle's folder
Bundles = Callable[..., Path]


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one in ISSUN_TEST_SLOW of the slow tests, a different selection every day."""
    seen = set()
    for item in items:
        if item.get_closest_marker("sampled"):
            function = item.nodeid.partition("[")[0]
            if function in seen:
                item.add_marker("slow")
            seen.add(function)
    share = int(os.environ.get("ISSUN_TEST_SLOW", "1"))
    day = datetime.now(UTC).toordinal()
    slow = [item for item in items if item.get_closest_marker("slow")]
    left_out = [item for place, item in enumerate(slow) if (place + day) % share]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep packed weights of the tests out of the user's cache, whose size is limited."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISSUN_CACHE", str(tmp_path_factory.mktemp("packed") / "weights"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test data that is not part of the project."""
    folder = (ROOT / os.environ.get("ISSUN_TEST_DATA", "../shared")).resolve()
    if not folder.is_dir():
        pytest.skip(f"there is no test data at {folder}: set ISSUN_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of some 400 pieces with the ids of the 1b model's special tokens."""
    path = tmp_path_factory.mktemp("tokenizer") / "spiece.model"
    train_tokenizer(path, pieces=400)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, spiece: Path) -> Callable[[str], Path]:
    """`checkpoint(name)`: the folder of the random checkpoint with that name in SHAPES."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            write_checkpoint(folder / name, SHAPES[name], spiece)
        return folder / name

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path]) -> Bundles:
    """`bundle(name, precision="int8", kv_cache="float32")`: the bundle of a random checkpoint."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(name: str, precision: str = "int8", *, kv_cache: str = "float32") -> Path:
        return _exported(checkpoint(name), folder, precision, kv_cache)

    return make


@pytest.fixture(scope="session")
def ja_small(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Bundles:
    """`ja_small(precision="int8", kv_cache="float32")`: the bundle of the small trained model.

    With `kv_cache="int8"` the bundle has the graphs of both cache types, int8 as the default.
    """
    source = shared / "checkpoints" / "ja-small"
    if not source.is_dir():
        pytest.skip(f"there is no checkpoint at {source}")
    folder = tmp_path_factory.mktemp("ja-small")

    def make(precision: str = "int8", *, kv_cache: str = "float32") -> Path:
        return _exported(source, folder, precision, kv_cache)

    return make


def _exported(source: Path, folder: Path, precision: str, kv_cache: str) -> Path:
    target = folder / f"{source.name}-{precision}-{kv_cache}"
    if not target.exists():
        unfitted = False if precision == "int4" else None  # GPTQ takes most of the time
        options = ExportOptions(precision=precision, kv_cache=kv_cache, gptq=unfitted)  # type: ignore[arg-type]
        export(source, target, options)
    return target


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright, which allows one of its kind in a process."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    with api.sync_playwright() as found:
        chromium = found.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
