"""Weights that are deleted, replaced, changed or truncated while a model uses them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from issun.runtime import BundleError, SamplingParams
from issun.runtime.weights.lease import Lease
from issun.runtime.weights.weight_cache import WeightCache
from tests.needs import posix
from tests.runtime.packed import IDS, exact, load, logits, the_entry


@posix
def test_a_cache_deleted_while_answering(folder: Path, cache: WeightCache) -> None:
    expected = exact(folder)[:-1]
    logits(folder)
    with load(folder) as model:
        shutil.rmtree(cache.folder)
        assert np.array_equal(model.score(IDS), expected)


def flip(path: Path) -> None:
    """Change a byte in place."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def truncate(path: Path) -> None:
    """Truncate the file: reading the pages that were mapped there kills the process (SIGBUS)."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.truncate(5)


def is_waited_for(lease: Lease) -> bool:
    """Return whether a file is leased and a writer waits for it."""
    if sys.platform != "linux" or not lease.held:
        return False
    import fcntl

    return fcntl.fcntl(lease._descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK


@pytest.mark.parametrize("change", [flip, truncate])
@pytest.mark.parametrize("of_the_cache", [True, False])
@posix
def test_weights_changed_in_the_middle_of_an_answer(
    folder: Path, cache: WeightCache, change: Callable[[Path], None], *, of_the_cache: bool
) -> None:
    expected = logits(folder)
    kept = the_entry(cache) / "packed.data"
    changed = kept if of_the_cache else folder / "model.onnx.data"
    with load(folder) as model:
        stream = model.stream(IDS, SamplingParams(min_new_tokens=20))
        next(stream)
        # The writer waits until the answer has ended.
        changing = Thread(target=change, args=[changed])
        changing.start()
        while changing.is_alive() and not is_waited_for(model.decoder.pages._leases[changed]):
            time.sleep(0.01)
        with pytest.raises(BundleError, match=r"data was changed while it was in use: load"):
            stream.finish()
        changing.join(20)
        assert not changing.is_alive()
        with pytest.raises(BundleError, match="in use"):
            model.score(IDS)
    if of_the_cache:  # packed again, with the right content
        assert np.array_equal(logits(folder), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has leases")
@pytest.mark.parametrize("of_the_cache", [True, False])
def test_weights_truncated_in_the_middle_of_a_step(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch, *, of_the_cache: bool
) -> None:
    logits(folder)
    changed = the_entry(cache) / "packed.data" if of_the_cache else folder / "model.onnx.data"
    size = changed.stat().st_size
    if not Lease(changed).held:
        pytest.skip("this file system has no leases")
    with load(folder) as model:
        whole, kv = model.decoder.session, model.new_cache()
        changing = Thread(target=truncate, args=[changed])

        def run_while_truncated(binding: Any) -> None:
            changing.start()
            changing.join(0.5)
            assert changed.stat().st_size == size
            whole.run_with_iobinding(binding)

        class TruncatedSession:
            run_with_iobinding = staticmethod(run_while_truncated)

            def __getattr__(self, name: str) -> Any:
                return getattr(whole, name)

        monkeypatch.setattr(model.decoder, "session", TruncatedSession())
        with pytest.raises(BundleError, match="in use"):
            model.decoder.prefill(kv, IDS)
        changing.join(20)
        assert changed.stat().st_size == 5


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has leases")
def test_an_attempt_to_write_does_not_end_an_answer(folder: Path, cache: WeightCache) -> None:
    expected = logits(folder)[:-1]
    data = the_entry(cache) / "packed.data"
    data.chmod(0o600)
    if not Lease(data).held:
        pytest.skip("this file system has no leases")
    with load(folder) as model:
        with pytest.raises(BlockingIOError):
            os.open(data, os.O_WRONLY | os.O_NONBLOCK)
        assert np.array_equal(model.score(IDS), expected)


@posix
def test_weights_replaced_while_answering(folder: Path, cache: WeightCache) -> None:
    """Another process packs again: the file mapped here stays intact."""
    expected = logits(folder)[:-1]
    data = the_entry(cache) / "packed.data"
    with load(folder) as model:
        other = data.with_name("other")
        other.write_bytes(b"others")
        other.replace(data)
        assert np.array_equal(model.score(IDS), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has leases")
def test_writers_do_not_wait_after_the_model_is_closed(folder: Path, cache: WeightCache) -> None:
    with load(folder) as model:
        model.score(IDS)
    for file in (the_entry(cache) / "packed.data", folder / "model.onnx.data"):
        file.chmod(0o600)
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
