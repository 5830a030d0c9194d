"""The parts that depend on the system, with Linux made to look like Windows and macOS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from issun.export import ExportOptions, export
from issun.runtime import Conversation, IssunError, Model, SamplingParams
from issun.runtime.files import new_file
from issun.runtime.manifest import read_manifest, verify_hashes
from issun.runtime.weights import weight_cache
from issun.runtime.weights.cores import physical_cores
from issun.runtime.weights.weight_cache import WeightCache
from issun.training.run import open_run
from tests.runtime.packed import Notes, logits
from tests.systems import PLATFORMS, pretend

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pretends on Linux alone")


@pytest.fixture(params=PLATFORMS)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pretend(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("win32", monkeypatch)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightCache:
    monkeypatch.setenv(weight_cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(weight_cache, "MIN_BUNDLE_BYTES", 0)
    return WeightCache(tmp_path / "cache")


def test_the_embedded_model_talks_and_is_saved(system: str, tmp_path: Path) -> None:
    with Model.load() as model:
        chat = Conversation(model)
        question = "日本で一番高い山は?"
        answer = chat.stream(question, SamplingParams(temperature=0)).finish()
        assert "富士山" in answer.text
        chat.save(tmp_path / "talk.json")
        again = Conversation(model)
        again.load(tmp_path / "talk.json")
        assert again.turns == chat.turns
    assert physical_cores() >= 1


@pytest.mark.sampled
def test_a_bundle_is_exported_and_replaced(
    system: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    for force in (False, True):
        export(checkpoint("head-8"), tmp_path / "b", ExportOptions(force=force))
        verify_hashes(tmp_path / "b", read_manifest(tmp_path / "b"))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_weights_are_packed_once_and_mapped(
    system: str, bundle: Callable[..., Path], cache: WeightCache
) -> None:
    folder, notes = bundle("head-17"), Notes()
    packed = logits(folder, notes)
    assert len(notes) == 1  # that they are packed
    assert np.array_equal(packed, logits(folder, notes))
    assert np.array_equal(packed, logits(folder, notes, keep_packed=False))
    assert len(notes) == 1
    assert cache.clear() > 0
    assert cache.entries() == []


def test_a_new_file_replaces_nothing(system: str, tmp_path: Path) -> None:
    with new_file(tmp_path / "a") as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), new_file(tmp_path / "a") as file:
        file.write(b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_best_follows_the_best_epoch(system: str, tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"epochs": 3}, resume=False) as run:
        for epoch, rate in enumerate((0.5, 0.75, 0.25), 1):
            run.epoch_folder(epoch).mkdir()
            run.record_epoch({"epoch": epoch, "loss": 1.0, "rate": rate})
            assert run.results()["best_linked"]
            assert (run.folder / "best").readlink() == Path(f"epoch-{min(epoch, 2)}")
    assert not list((tmp_path / "run").glob(".aside-*"))


def test_where_links_are_not_allowed_none_points_to_an_older_epoch(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(22, "A required privilege is not held by the client")

    with open_run(tmp_path / "run", {"epochs": 2}, resume=False) as run:
        run.record_epoch({"epoch": 1, "loss": 1.0, "rate": 0.5})
        assert (run.folder / "best").is_symlink()
        monkeypatch.setattr(Path, "symlink_to", refused)
        run.record_epoch({"epoch": 2, "loss": 1.0, "rate": 0.75})
        assert run.results()["best_linked"] is False
        assert not (run.folder / "best").is_symlink()


def test_an_entry_in_use_stays_whole_when_the_cache_is_cleared(
    windows: None, bundle: Callable[..., Path], cache: WeightCache
) -> None:
    folder = bundle("head-17")
    with Model.load(folder, threads=1):
        with pytest.raises(IssunError, match="cannot be removed: Permission denied"):
            cache.clear()
        assert len(cache.entries()) == 1
        notes = Notes()
        logits(folder, notes)
        assert notes == []  # it is used and not packed again
    assert cache.clear() > 0


def test_a_damaged_entry_in_use_is_not_packed_again_at_each_load(
    windows: None, bundle: Callable[..., Path], cache: WeightCache
) -> None:
    folder = bundle("head-17")
    expected = logits(folder, keep_packed=False)
    with Model.load(folder, threads=1):
        (entry,) = cache.entries()
        (cache.folder / entry.key / "index.json").write_text("damaged", encoding="utf-8")
        notes = Notes()
        assert np.array_equal(logits(folder, notes), expected)
        assert notes == ["Packed weights are not used: Permission denied"]
    notes = Notes()
    logits(folder, notes)
    assert [note[:19] for note in notes] == ["Packing the weights"]
    assert len(cache.entries()) == 1


def test_an_entry_in_use_gives_no_room(
    windows: None,
    bundle: Callable[..., Path],
    cache: WeightCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Model.load(bundle("head-17"), threads=1):
        (first,) = cache.entries()
        limit = first.packed.size + 1
        monkeypatch.setattr(weight_cache, "MAX_CACHE_BYTES", limit)
        logits(bundle("head-17", "int4"))
        assert first.key in {entry.key for entry in cache.entries()}
