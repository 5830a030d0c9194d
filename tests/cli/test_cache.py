"""`issun cache` lists, checks and clears; the notices of a first load are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.runtime import Model
from issun.runtime.weights import weight_cache
from tests.cli.conftest import issun


@pytest.fixture
def cache(tmp_path: Path, fuji: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISSUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_cache, "MIN_BUNDLE_BYTES", 0)
    Model.load(fuji).close()
    return tmp_path / "cache"


def test_list_verify_and_clear(cache: Path, fuji: Path) -> None:
    (data,) = cache.glob("*/packed.data")
    megabytes = f"{data.stat().st_size / 1e6:.1f}"
    for action in ([], ["list"], ["verify"]):
        done = issun("cache", *action)
        assert (done.code, done.out) == (0, f"{megabytes:>9} MB  {fuji}\n")
        assert f"Entries in {cache}: 1, {megabytes} MB in total.\n" in done.err
    data.chmod(0o600)
    data.write_bytes(b"x" * data.stat().st_size)
    done = issun("cache", "verify")
    assert done.code == 2
    assert done.err.endswith(
        f"error: Damaged: {fuji}. `issun cache clear` removes all packed weights.\n"
    )
    done = issun("cache", "clear")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"Freed {megabytes} MB in ")
    assert issun("cache").err == f"Entries in {cache}: 0, 0.0 MB in total.\n"


def test_no_cache_and_a_wrong_action() -> None:
    done = issun("cache", ISSUN_CACHE="")
    assert (done.code, done.err) == (2, "error: ISSUN_CACHE is empty, so there is no cache.\n")
    done = issun("cache", "purge")
    assert done.code == 2
    assert "'purge'" in done.err


@pytest.mark.sampled
@pytest.mark.parametrize("place", [0, 100, -10, -1])
def test_verify_reads_the_keys_and_values_too(cache: Path, fuji: Path, place: int) -> None:
    with Model.load(fuji) as model:
        model.generate(model.prompt("山は?"))
    (file,) = cache.glob("*/*.kv")
    assert issun("cache", "verify").code == 0
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    done = issun("cache", "verify")
    assert done.code == 2
    assert f"error: Damaged: {fuji}." in done.err
    file.write_bytes(b"")
    assert issun("cache", "verify").code == 2
