"""`issun bench fidelity`: what it prints, keeps in the bundle, and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from issun.cli import fidelity
from issun.runtime.manifest import read_manifest
from tests.cli.conftest import issun

Bundles = Callable[..., Path]


@pytest.fixture(scope="module")
def exact(bundle: Bundles) -> Path:
    return bundle("unscaled", "float32")


@pytest.fixture
def rounded(bundle: Bundles, tmp_path: Path) -> Path:
    return shutil.copytree(bundle("unscaled", "int8", kv_cache="int8"), tmp_path / "b8")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "文章.txt"
    path.write_text("山と川と海の話をしましょう。\n" * 9, encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_figures_are_printed_and_kept(exact: Path, rounded: Path, text: Path) -> None:
    before = read_manifest(rounded)
    result = issun(
        "bench", "fidelity", rounded, "--against", exact, "--text", text, "--answers", "1"
    )
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("float32 KV cache compared with unscaled in float32, on 文章.txt (")
    names = [line[2:16].strip() for line in lines[1:9]]
    assert names == [
        *("perplexity", "ratio", "KL divergence", "", "same top token", "same answer"),
        *("by position", "0 - 31"),
    ]
    assert sum(" KV cache compared with " in line for line in lines) == 2
    after = read_manifest(rounded)
    assert after.bundle_id == before.bundle_id
    assert set(after.fidelity) == {"float32", "int8"}
    assert 0 < after.fidelity["float32"]["kl_mean"] < 0.1
    shown = [line for line in issun("inspect", rounded).out.splitlines() if "fidelity" in line]
    assert [line.split(":")[1].split()[0] for line in shown] == ["float32", "int8"]
    assert f"KL {after.fidelity['int8']['kl_mean']:.5f}" in shown[1]


def test_a_checkpoint_is_exported_and_taken_away(
    checkpoint: Callable[[str], Path], rounded: Path, text: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    result = issun(
        *("bench", "fidelity", rounded, "--against", checkpoint("unscaled"), "--text", text),
        *("--kv-cache", "float32", "--answers", "0", "--no-keep", "--json", "--work", work),
    )
    assert (result.code, result.err) == (0, "")
    (found,) = json.loads(result.out).values()
    assert found["positions"] > 0
    assert found["answers"] == 0
    assert read_manifest(rounded).fidelity == {}
    assert list(work.iterdir()) == []


def test_a_bundle_that_cannot_be_written(
    exact: Path,
    rounded: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:  # a folder without rights does not stop an administrator
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("issun.cli.fidelity.write_manifest", refuse)
    fidelity.run(bundles=[rounded], against=exact, text=[text], kv_cache="float32", answers=0)
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.endswith(f"{rounded}: Permission denied\n")
    assert "0 - 31" in shown.out


@pytest.mark.slow
def test_what_is_refused(exact: Path, rounded: Path, text: Path, tmp_path: Path) -> None:
    def refused(*args: object) -> str:
        result = issun("bench", "fidelity", *args)
        assert (result.code, result.out) == (2, "")
        assert result.err.count("\n") == 1
        return result.err

    assert "is int8: compare with the checkpoint" in refused(rounded, "--against", rounded)
    assert "There is no folder" in refused(tmp_path / "no", "--against", exact)
    assert "no config.json" in refused(rounded, "--against", tmp_path)
    assert "cannot be read" in refused(rounded, "--against", exact, "--text", tmp_path / "no.txt")
    assert "kv_cache is 'int4'" in refused(rounded, "--against", exact, "--kv-cache", "int4")
    assert "answers is -1" in refused(rounded, "--against", exact, "--answers", "-1")


@pytest.mark.slow
def test_the_most_sensitive_layers_are_listed(
    rounded: Path, exact: Path, text: Path, checkpoint: Callable[[str], Path]
) -> None:
    ask = ["bench", "fidelity", rounded, "--text", text, "--answers", "0", "--by-layer"]
    result = issun(*ask, "--against", checkpoint("unscaled"))
    assert result.code == 0, result.err
    (*_, last) = result.out.split("relative change of their block's output\n")
    lines = [line.split() for line in last.splitlines()]
    assert 0 < len(lines) <= 10
    assert all(line[0].startswith("h.") and line[1] == "int8" for line in lines)
    shares = [float(line[2]) for line in lines]
    assert shares == sorted(shares, reverse=True)
    found = json.loads(issun(*ask, "--against", checkpoint("unscaled"), "--json").out)
    assert found["by_layer"][0]["linear"] == lines[0][0]
    refused = issun(*ask, "--against", exact)
    assert (refused.code, refused.err) == (
        2,
        "error: --by-layer needs the checkpoint: give it with --against.\n",
    )
