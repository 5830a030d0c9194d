"""Packed weights that are deleted, changed, on a full disk, without permission, or packed twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock

from issun.runtime import BundleError, OutOfMemoryError
from issun.runtime.errors import IssunError
from issun.runtime.manifest import read_manifest, sha256_of
from issun.runtime.weights import packing, weight_cache
from issun.runtime.weights.weight_cache import WeightCache
from tests.runtime.packed import Notes, exact, load, logits, mapped


def test_the_least_recently_used_entry_is_removed(
    bundle: Callable[..., Path], cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [bundle(name) for name in ("head-17", "inner-90", "unscaled")]
    for folder in folders:
        logits(folder)
    entries = {entry.bundle: entry for entry in cache.entries()}
    first, second, third = (entries[str(folder)] for folder in folders)
    shutil.rmtree(cache.folder / third.key)
    for age, entry in enumerate((first, second)):
        os.utime(cache.folder / entry.key / "index.json", (1000 - age, 1000 + age))
    logits(folders[0])  # now the second is the least recently used
    monkeypatch.setattr(
        weight_cache, "MAX_CACHE_BYTES", cache.size_of(first.key) + third.packed.size
    )
    logits(folders[2])
    assert [entry.bundle for entry in cache.entries()] == [third.bundle, first.bundle]


def test_too_little_disk_space(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))  # type: ignore[attr-defined]
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert notes[0].startswith("Packed weights are not cached: packing needs ")
    assert cache.entries() == []


def test_a_bundle_larger_than_the_cache(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_cache, "MAX_CACHE_BYTES", 1000)
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert notes == ["Packed weights are not cached: they exceed the cache's limit of 0 MB."]
    assert cache.entries() == []


def test_a_disk_that_fills_up(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_cache, "pack", full)
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert notes[-1] == "Packed weights are not used: No space left on device"
    assert list(cache.folder.glob("*.partial")) == []


def test_a_full_disk_reported_by_onnx_runtime(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        room.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=4096))
        raise BundleError("[ONNXRuntimeError] : 1 : FAIL : write failed")

    notes: Notes = []
    with monkeypatch.context() as room:
        room.setattr(weight_cache, "pack", full)
        logits(folder, notes)
    assert notes[-1] == "Packed weights are not used: No space left on device"
    assert list(cache.folder.glob("*.partial")) == []


def test_packing_needs_disk_space_of_three_and_a_half_bundles(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, kept in ((-1, False), (1, True)):
        size = int(3.5 * read_manifest(folder).size) + free
        usage = SimpleNamespace(free=size)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        logits(folder)
        assert bool(cache.entries()) == kept


def test_clearing_while_another_process_removes_files(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(folder)
    (entry,) = cache.entries()
    remove = shutil.rmtree

    def interrupted(path: Path) -> None:
        (path / "index.json").unlink(missing_ok=True)
        monkeypatch.setattr(shutil, "rmtree", remove)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    assert cache.clear() > 0
    assert not (cache.folder / entry.key).exists()


def test_an_entry_that_cannot_be_removed_is_named(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(30, "Read-only file system", ".lock")

    logits(folder)
    (entry,) = cache.entries()
    monkeypatch.setattr(shutil, "rmtree", refused)
    path = re.escape(str(cache.folder / entry.key))
    with pytest.raises(IssunError, match=f"^{path} cannot be removed: Read-only file system$"):
        cache.clear()


FULL = """
import resource, signal, sys
from issun.runtime import Model
from issun.runtime.weights import weight_cache
weight_cache.MIN_BUNDLE_BYTES = 0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
told = lambda template, **values: print(template.format(**values))
with Model.load(sys.argv[1], threads=1, notify=told) as model:
    print(model.score([9, 10, 11]).shape[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
def test_a_file_that_cannot_grow_while_packing(folder: Path, cache: WeightCache) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ISSUN_CACHE": str(cache.folder)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "3"
    assert lines[-2].startswith("Packed weights are not used: ")
    assert cache.entries() == []
    assert list(cache.folder.glob("*.partial")) == []


def test_an_entry_outlives_a_shortage_of_memory(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(folder)
    entries = cache.entries()
    real = packing.create_session

    def short(*arguments: Any, **options: Any) -> Any:
        if options.get("content"):
            raise OutOfMemoryError("There is not enough memory.")
        return real(*arguments, **options)

    monkeypatch.setattr(packing, "create_session", short)
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert notes == ["Packed weights are not used: There is not enough memory."]
    assert cache.entries() == entries


def test_a_read_only_cache_is_used(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    notes: Notes = []
    with load(folder, notes):
        assert mapped() > 0
    assert notes == []


def test_a_folder_that_cannot_be_created(folder: Path, tmp_path: Path, cache: WeightCache) -> None:
    cache.folder.write_text("a file", encoding="utf-8")
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert notes == ["Packed weights are not used: File exists"]


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_a_folder_that_others_can_write_is_refused(folder: Path, cache: WeightCache) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o770)
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert notes == [f"Packed weights are not used: {cache.folder} can be written by others"]
    assert list(cache.folder.iterdir()) == []


def test_remains_of_a_killed_process_are_removed(folder: Path, cache: WeightCache) -> None:
    left = cache.folder / ("0" * 32 + ".partial")
    left.mkdir(parents=True, mode=0o700)
    cache.folder.chmod(0o700)
    (left / "saved.data").write_bytes(b"half")
    logits(folder)
    assert not left.exists()
    left.mkdir()
    other = cache.folder / "somebody's"
    other.mkdir()
    cache.clear()
    assert [path.name for path in sorted(cache.folder.iterdir())] == [".lock", "somebody's"]


def test_data_outside_the_bundle_is_refused_as_without_a_cache(
    folder: Path, cache: WeightCache
) -> None:
    logits(folder)
    outside = folder.parent / "outside.data"
    shutil.copy(folder / "model.onnx.data", outside)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for field in tensor.external_data:
            if field.key == "location":
                field.value = "../outside.data"
    onnx.save(model, folder / "model.onnx")
    manifest = json.loads((folder / "issun.json").read_text(encoding="utf-8"))
    graph = folder / "model.onnx"
    manifest["files"][graph.name] = {"size": graph.stat().st_size, "sha256": sha256_of(graph)}
    (folder / "issun.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match="not part of the bundle"):
        load(folder)


def test_small_bundles_and_an_empty_variable_pack_nothing(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(folder, keep_packed=False)
    monkeypatch.setattr(weight_cache, "MIN_BUNDLE_BYTES", 10**7)
    logits(folder)
    monkeypatch.setattr(weight_cache, "MIN_BUNDLE_BYTES", 0)
    monkeypatch.setenv("ISSUN_CACHE", "")
    logits(folder)
    assert not cache.folder.exists()


LOADS = """
import sys
from issun.runtime import Model
from issun.runtime.weights import weight_cache
weight_cache.MIN_BUNDLE_BYTES = 0
with Model.load(sys.argv[1], threads=1) as model:
    print(model.score([9, 8, 7]).sum())
"""


def test_loading_does_not_wait_for_another_process_that_packs(
    folder: Path, cache: WeightCache
) -> None:
    cache.folder.mkdir(mode=0o700)
    with FileLock(cache.folder / ".lock"):
        assert np.array_equal(logits(folder), exact(folder))
        assert cache.entries() == []
    logits(folder)
    assert len(cache.entries()) == 1


HOLDS = """
import re, sys
from pathlib import Path
from issun.runtime import Model
from issun.runtime.weights import weight_cache
weight_cache.MIN_BUNDLE_BYTES = 0
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
with Model.load(threads=1): pass
before = anonymous()
with Model.load(sys.argv[1], threads=1, keep_packed=sys.argv[2] == "True") as model:
    print(anonymous() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells kinds of pages apart")
def test_packed_weights_are_not_copied(ja_small: Callable[..., Path], cache: WeightCache) -> None:
    """In kB: 8.8 million parameters are mapped, also by the process that packs, or private."""
    took = []
    for keep in (True, True, False):
        command = [sys.executable, "-c", HOLDS, str(ja_small()), str(keep)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took.append(int(done.stdout))
    size = cache.entries()[0].packed.size / 1024
    assert max(took[:2]) < 0.7 * size
    assert took[2] > 0.7 * size


def test_two_processes_at_the_first_load(folder: Path, cache: WeightCache) -> None:
    command = [sys.executable, "-c", LOADS, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said) == 1
    assert len(cache.entries()) == 1
    assert not list(cache.folder.glob("*.partial"))
