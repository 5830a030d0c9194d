"""Packed weights: mapped, shared, and never used for another bundle or CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import platformdirs
import pytest

from issun.runtime.weights import weight_cache
from issun.runtime.weights.weight_cache import WeightCache
from tests.needs import has_mode
from tests.runtime.packed import Notes, exact, load, logits, mapped, the_entry


@pytest.mark.sampled
@pytest.mark.parametrize("precision", ["float32", "int8", "int4"])
@pytest.mark.parametrize("name", ["head-20-width-100", "head-40-untied", "vocab-8011"])
def test_logits_and_embeddings_equal_the_bundle_s(
    bundle: Callable[..., Path], cache: WeightCache, name: str, precision: str
) -> None:
    folder = bundle(name, precision)
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), exact(folder))
    assert [note[:19] for note in notes] == ["Packing the weights"]
    notes.clear()
    with load(folder, notes) as packed, load(folder, keep_packed=False) as plain:
        assert not notes
        (entry,) = cache.entries()
        assert mapped() > 0.9 * entry.packed.size
        width = plain.manifest.architecture.n_positions
        rows = plain.manifest.architecture.vocab_size
        for start in range(0, rows, width):
            ids = list(range(start, min(start + width, rows)))
            assert np.array_equal(packed.score(ids), plain.score(ids))


def test_both_kv_caches_share_an_entry(bundle: Callable[..., Path], cache: WeightCache) -> None:
    folder = bundle("head-20-width-100", kv_cache="int8")
    for kind in ("float32", "int8"):
        assert np.array_equal(
            logits(folder, kv_cache=kind), logits(folder, kv_cache=kind, keep_packed=False)
        )
    (entry,) = cache.entries()
    with load(folder, kv_cache="int8"), load(folder, kv_cache="float32"):
        assert mapped() > 1.8 * entry.packed.size


def test_the_entry_contains_only_packed_weights(folder: Path, cache: WeightCache) -> None:
    logits(folder)
    entry = the_entry(cache)
    names = sorted(path.name for path in entry.iterdir() if not path.name.startswith("row-cost"))
    assert names == ["index.json", "packed.data"]
    packed = cache.entries()[0].packed
    blobs = [blob.split(";") for weight in packed.weights for blob in weight.split("|")[1:]]
    first = min(int(offset) for offset, _, _ in blobs)
    assert packed.size < first + sum(int(length) + 4096 for _, length, _ in blobs)
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    (kept,) = (t for t in graph.graph.initializer if t.name == packed.carrier)
    assert first < 4 * int(np.prod(kept.dims)) + 4096
    assert has_mode(entry, 0o700)
    assert has_mode(entry / "packed.data", 0o400)


@pytest.mark.parametrize("place", ["carrier", "weight", "end"])
def test_a_damaged_byte_is_detected(folder: Path, cache: WeightCache, place: str) -> None:
    expected = logits(folder)
    data = the_entry(cache) / "packed.data"
    content = bytearray(data.read_bytes())
    content[{"carrier": 1, "weight": len(content) // 2, "end": -9}[place]] ^= 1
    data.chmod(0o600)
    data.write_bytes(content)
    assert [entry.bundle for entry in cache.damaged()] == [str(folder)]
    notes: Notes = []
    assert np.array_equal(logits(folder, notes), expected)
    assert notes == [f"Removed damaged packed weights from {cache.folder}."]
    assert cache.entries() == []
    assert np.array_equal(logits(folder), expected)
    assert list(cache.damaged()) == []
    assert len(cache.entries()) == 1


def change(index: Path, **packed: object) -> None:
    content = json.loads(index.read_text(encoding="utf-8"))
    content["packed"] |= packed
    index.write_text(json.dumps(content), encoding="utf-8")


def test_weights_packed_on_another_cpu_are_not_used(folder: Path, cache: WeightCache) -> None:
    expected = logits(folder)
    index = the_entry(cache) / "index.json"
    weights = json.loads(index.read_text(encoding="utf-8"))["packed"]["weights"]
    change(index, weights=[weight.replace("|", "7|", 1) for weight in weights])  # other hashes
    assert np.array_equal(logits(folder), expected)


@pytest.mark.parametrize("part", ["index.json", "packed.data"])
@pytest.mark.parametrize("fault", ["missing", "short", "garbage"])
def test_an_incomplete_entry_is_replaced(
    folder: Path, cache: WeightCache, part: str, fault: str
) -> None:
    expected = logits(folder)
    path = the_entry(cache) / part
    path.chmod(0o600)
    if fault == "missing":
        path.unlink()
    elif fault == "short":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(b"\xff" * path.stat().st_size)
    for _ in range(2):  # garbage of the right size is only detected by ONNX Runtime
        assert np.array_equal(logits(folder), expected)
    with load(folder):
        assert mapped() > 0


def test_an_index_that_points_elsewhere_is_not_followed(folder: Path, cache: WeightCache) -> None:
    expected = logits(folder)
    index = the_entry(cache) / "index.json"
    weights = json.loads(index.read_text(encoding="utf-8"))["packed"]["weights"]
    name, blob = weights[0].split("|")[:2]
    change(index, weights=[f"{name}|{10**12};{blob.split(';')[1]};0"])
    assert np.array_equal(logits(folder), expected)


def test_another_version_or_cpu_has_its_own_entry(
    folder: Path, cache: WeightCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits(folder)
    monkeypatch.setattr(weight_cache, "cpu_description", lambda: "another")
    logits(folder)
    monkeypatch.setattr("onnxruntime.__version__", "0.1")
    logits(folder)
    assert len(cache.entries()) == 3


def test_arm_cpus_with_the_same_features_differ_by_their_parts(tmp_path: Path) -> None:
    found = set()
    for parts in (["0xd03"], ["0xd08"], ["0xd03", "0xd08"]):
        file = tmp_path / "cpuinfo"
        lines = [f"Features\t: fp asimd\nCPU part\t: {part}\n" for part in parts * 2]
        file.write_text("\n".join(lines), encoding="utf-8")
        found.add(weight_cache.cpu_description(file))
    assert len(found) == 3


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux has this file")
def test_thecpu_description_contains_its_features() -> None:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    can = next(line for line in lines if line.startswith(("flags", "Features")))
    assert can in weight_cache.cpu_description()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_the_cache_is_in_the_system_s_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISSUN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = weight_cache.default_cache()
    assert found is not None
    assert found.folder == tmp_path / "issun" / "weights"


def test_tests_do_not_touch_the_user_s_cache() -> None:
    found = weight_cache.default_cache()
    assert found is not None
    assert found.folder != platformdirs.user_cache_path("issun") / "weights"
