"""The wheels of a kit: issun's own, and those that it needs on another computer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from issun.kit import KitError, Target, wheels
from issun.kit.wheels import download, own_wheel
from tests.kit.wheelhouse import write_wheel


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target("windows-arm64", "3.11"), {"helper", "old", "coloured"}),
        (Target("macos-arm64", "3.14"), {"helper"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_markers_count_for_the_target(
    tmp_path: Path, wheel: Path, offline_pip: None, target: Target, expected: set[str]
) -> None:
    # pip asks for `old` too where it runs on an old Python, which does no harm.
    harmless = {"old"} if sys.version_info < (3, 12) else set()
    download(target, wheel, tmp_path / "found", lambda *_, **__: None)
    names = {path.name.partition("-")[0] for path in (tmp_path / "found").iterdir()}
    assert names - harmless == (expected | {"pip", "issun"}) - harmless


def test_an_extra_brings_what_it_needs(tmp_path: Path, wheel: Path, offline_pip: None) -> None:
    target = Target("macos-arm64", "3.14")
    download(target, wheel, tmp_path / "found", lambda *_, **__: None, extra="models")
    names = {path.name.partition("-")[0] for path in (tmp_path / "found").iterdir()}
    assert names >= {"tokenizers", "helper", "pip", "issun"}


def test_a_wheel_that_no_index_has_is_named(tmp_path: Path, offline_pip: None) -> None:
    lonely = write_wheel(tmp_path, "issun", {}, "nowhere-to-be-found>=3")
    with pytest.raises(KitError) as caught:
        download(Target("macos-arm64", "3.12"), lonely, tmp_path / "f", lambda *_, **__: None)
    assert str(caught.value) == (
        "The wheels for macos-arm64-3.12 cannot be downloaded: "
        "No matching distribution found for nowhere-to-be-found>=3"
    )


@pytest.mark.slow
def test_a_wheel_that_is_missing_on_the_target_alone_is_named(
    tmp_path: Path, offline_pip: None
) -> None:
    lonely = write_wheel(tmp_path, "issun", {}, "nowhere-at-all ; sys_platform == 'win32'")
    with pytest.raises(KitError, match="No matching distribution found for nowhere-at-all"):
        download(Target("windows-arm64", "3.12"), lonely, tmp_path / "f", lambda *_, **__: None)


def test_the_given_wheel_is_taken(tmp_path: Path, wheel: Path) -> None:
    assert own_wheel(wheel, tmp_path) == wheel


def test_a_given_file_that_is_no_wheel_of_issun(tmp_path: Path, wheel: Path) -> None:
    with pytest.raises(KitError, match=r"There is no file gone-1\.0-py3-none-any\.whl"):
        own_wheel(Path("gone-1.0-py3-none-any.whl"), tmp_path)
    (tmp_path / "issun-2.0-py3-none-any.whl").write_text("no archive", encoding="utf-8")
    (tmp_path / "issun.zip").write_bytes(wheel.read_bytes())
    other = write_wheel(tmp_path, "other", {})
    for path in (other, tmp_path / "issun-2.0-py3-none-any.whl", tmp_path / "issun.zip"):
        with pytest.raises(KitError, match="is not a wheel of issun"):
            own_wheel(path, tmp_path)


@pytest.fixture
def installed_from(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`origin.url` is where issun says that it was installed from."""
    origin = SimpleNamespace(url=None)

    def read_text(name: str) -> str | None:
        assert name == "direct_url.json"
        return origin.url and json.dumps({"url": origin.url})

    found = SimpleNamespace(read_text=read_text)
    monkeypatch.setattr(wheels, "distribution", lambda name: found)
    return origin


def test_an_issun_that_was_installed_from_a_wheel_takes_it(
    tmp_path: Path, wheel: Path, installed_from: SimpleNamespace
) -> None:
    installed_from.url = wheel.as_uri()
    assert own_wheel(None, tmp_path) == wheel


@pytest.mark.parametrize("url", [None, "https://example.org/issun.whl", "gone", "empty"])
def test_an_issun_whose_checkout_is_gone_asks_for_a_wheel(
    tmp_path: Path, installed_from: SimpleNamespace, url: str | None
) -> None:
    (tmp_path / "empty").mkdir()
    installed_from.url = (tmp_path / url).as_uri() if url in ("gone", "empty") else url
    with pytest.raises(KitError, match="give issun's wheel with --wheel"):
        own_wheel(None, tmp_path)


def test_what_a_wheel_is_built_of(tmp_path: Path, installed_from: SimpleNamespace) -> None:
    built = {"pyproject.toml", "cli/__init__.py", "src/issun/__init__.py"}
    other = {"cli/__pycache__/x.pyc", "b4/issun.json", "build/lib/__init__.py", ".git/config"}
    checkout, work = tmp_path / "check out", tmp_path / "work"
    for name in built | other | {"venv/lib/a/b/__init__.py"}:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("no TOML", encoding="utf-8")
    with (checkout / "model.bin").open("wb") as file:
        file.truncate(2 << 20)
    work.mkdir()
    installed_from.url = checkout.as_uri()
    with pytest.raises(KitError, match="issun's wheel cannot be built: "):
        own_wheel(None, work)
    found = (path for path in (work / "source").rglob("*") if path.is_file())
    assert {path.relative_to(work / "source").as_posix() for path in found} == built


def test_without_pip_uv_runs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    monkeypatch.setattr(wheels.shutil, "which", {"uv": "/bin/uv"}.get)
    assert wheels._pip() == ["/bin/uv", "tool", "run", "pip"]
    monkeypatch.setattr(wheels.shutil, "which", lambda name: None)
    with pytest.raises(KitError, match="This Python has no pip"):
        wheels._pip()
