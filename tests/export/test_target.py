"""Where a bundle may be written, and that it is written completely or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from issun.export import CheckpointError, ExportOptions, TargetError, export
from issun.export.target import check_space, check_target
from issun.runtime import Model, ParameterError
from issun.runtime.manifest import Manifest, read_manifest, verify_hashes
from tests.needs import links

NAME = "vocab-8011"
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


@pytest.fixture
def source(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint(NAME)


@pytest.fixture
def old(bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A target with another bundle in it."""
    return shutil.copytree(bundle("head-8", "int4"), tmp_path / "bundle")


class Notes(list[str]):
    """Collects the notices of an export, apart from the prompt format's, which each prints."""

    def __call__(self, template: str, **values: object) -> None:
        if not template.startswith("prompt format"):
            self.append(template.format(**values))


def export_to(source: Path, target: Path, *, force: bool = False) -> tuple[Manifest, list[str]]:
    notes = Notes()
    manifest = export(source, target, ExportOptions(force=force), notify=notes)
    return manifest, notes


def check_complete(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    verify_hashes(folder, manifest)
    return manifest


def refused(source: Path, target: Path, *, force: bool = False) -> str:
    """The error message of a refused export, which must not change files or start a stage."""
    before = everything(target.parent)
    stages: list[str] = []
    with pytest.raises(TargetError) as caught:
        export(
            source,
            target,
            ExportOptions(force=force),
            progress=lambda stage, *_: stages.append(stage),
        )
    assert stages == []
    assert everything(target.parent) == before
    return str(caught.value)


def everything(folder: Path) -> dict[str, bytes | None]:
    if not folder.is_dir():
        return {}
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# --- what is refused ---


def test_a_new_folder(source: Path, tmp_path: Path) -> None:
    manifest, notes = export_to(source, tmp_path / "bundle")
    assert check_complete(tmp_path / "bundle") == manifest
    assert notes == []
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_existing_folder_needs_force(source: Path, old: Path) -> None:
    assert "exists: choose another folder, or replace the bundle in it with --force" in refused(
        source, old
    )


def test_an_empty_folder_needs_force(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "empty"
    target.mkdir()
    assert "exists" in refused(source, target)
    export_to(source, target, force=True)
    check_complete(target)


def test_force_replaces_a_bundle_completely(source: Path, old: Path) -> None:
    (old / "notes.txt").write_text("mine")
    manifest, notes = export_to(source, old, force=True)
    assert check_complete(old) == manifest
    assert not (old / "notes.txt").exists()
    assert notes == []
    assert [path.name for path in old.parent.iterdir()] == ["bundle"]


def test_force_does_not_replace_other_folders_or_files(source: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("work", "file"):
        message = refused(source, tmp_path / name, force=True)
        assert "is not a bundle, so --force does not replace it" in message


@pytest.mark.parametrize("force", [False, True])
@links
def test_a_symbolic_link(source: Path, old: Path, force: bool) -> None:
    link, dangling = old.parent / "link", old.parent / "dangling"
    link.symlink_to(old)
    dangling.symlink_to(old.parent / "nowhere")
    for path in (link, dangling):
        assert "is a symbolic link" in refused(source, path, force=force)


def test_no_parent(source: Path, tmp_path: Path) -> None:
    assert f"no folder {tmp_path / 'no'}" in refused(source, tmp_path / "no" / "bundle")


@links
def test_the_source_is_never_overwritten(tmp_path: Path, old: Path) -> None:
    # Each of these contains a bundle, so --force alone would allow it.
    inside = old / "inside"
    inside.mkdir()
    (inside / "issun.json").write_text("{}")
    (old.parent / "other").symlink_to(old)
    for source, target in (
        (old, old),
        (old, inside),
        (inside, old),
        (old, old / "new"),
        (old.parent / "other", old),
        (old, old.parent / "other" / "inside"),
        (old, inside / ".." / "inside"),
    ):
        assert "overlaps the checkpoint" in refused(source, target, force=True)


def test_names_with_a_common_prefix_are_not_nested(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    check_target(tmp_path / "model-int8", tmp_path / "model", force=False)


def test_disk_space_is_checked_before_the_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3_999_999))
    message = refused(source, tmp_path / "bundle")
    assert "but only 3 MB are free" in message
    needed = int(message.partition(" needs ")[2].partition(" MB")[0])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed * 10**6))
    export_to(source, tmp_path / "bundle")
    size = sum(path.stat().st_size for path in (tmp_path / "bundle").iterdir())
    assert size <= needed * 10**6 <= size + 20 * 10**6


def test_disk_space_is_exact_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    check_space(tmp_path / "new", 1000)
    with pytest.raises(TargetError, match="needs 1 MB of disk space, but only 0 MB are free"):
        check_space(tmp_path / "new", 1001)


def test_an_invalid_file_name(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be written"):
        export_to(source, tmp_path / ("n" * 250))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_leaves_the_old_bundle(source: Path, old: Path) -> None:
    before = everything(old.parent)

    def fail(stage: str, done: int, total: int) -> None:
        if done:
            raise CheckpointError("This went wrong.")

    with pytest.raises(CheckpointError, match="went wrong"):
        export(source, old, ExportOptions(force=True), progress=fail)
    assert everything(old.parent) == before


def test_a_bundle_written_in_the_meantime_is_not_replaced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def appear(stage: str, done: int, total: int) -> None:
        if not target.exists():
            target.mkdir()
            (target / "thesis.txt").write_text("mine")

    with pytest.raises(TargetError, match="cannot be written"):
        export(source, target, progress=appear)
    assert everything(tmp_path) == {str(target): None, str(target / "thesis.txt"): b"mine"}


# --- killed exports and system limits ---

_EXPORT = """
import resource, shutil, sys
from pathlib import Path
from issun.export import ExportOptions, export

where, source, target = sys.argv[1:]

def pause():
    print("here", flush=True)
    sys.stdin.readline()

def progress(stage, done, total):
    if where == "write" and done:
        pause()

if where == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
if where == "aside":
    rename = Path.rename
    Path.rename = lambda path, to: pause() if path.suffix == ".partial" else rename(path, to)
if where == "done":
    rmtree = shutil.rmtree
    shutil.rmtree = lambda path, **_: pause() if path.suffix == ".old" else rmtree(path, **_)
try:
    export(source, target, ExportOptions(force=True), progress=progress)
except Exception as error:
    print(type(error).__name__, error)
"""


def start(where: str, source: Path, target: Path) -> subprocess.Popen[str]:
    """An export in another process that prints "here" at `where` and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", _EXPORT, where, source, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "here\n", line
    return process


def kill(where: str, source: Path, target: Path) -> None:
    process = start(where, source, target)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def hidden(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir() if path.name.startswith("."))


@posix
def test_a_killed_export_leaves_no_bundle_and_the_next_cleans_up(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "bundle"
    kill("write", source, target)
    assert not target.exists()
    assert hidden(tmp_path) == [".lock", ".partial"]
    (partial,) = tmp_path.glob(".*.partial")
    _, notes = export_to(source, target)
    assert notes == [f"Removed {partial}, which a killed export had left."]
    check_complete(target)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@posix
def test_a_killed_export_leaves_the_old_bundle_intact(source: Path, old: Path) -> None:
    before = everything(old)
    kill("write", source, old)
    assert everything(old) == before
    Model.load(old, threads=1)
    _, notes = export_to(source, old, force=True)
    assert len(notes) == 1
    assert hidden(old.parent) == []


@posix
def test_killed_between_the_two_renames(source: Path, old: Path) -> None:
    before = everything(old)
    kill("aside", source, old)
    assert not old.exists()
    assert hidden(old.parent) == [".lock", ".old", ".partial"]
    # The old bundle is restored, and is not replaced without --force.
    notes = Notes()
    with pytest.raises(TargetError, match="exists"):
        export(source, old, notify=notes)
    assert notes[0] == f"Restored {old}, which a killed export had renamed."
    assert notes[1].startswith("Removed ")
    assert everything(old) == before
    assert hidden(old.parent) == []


@posix
def test_killed_before_the_old_bundle_is_deleted(source: Path, old: Path) -> None:
    kill("done", source, old)
    manifest = check_complete(old)
    assert manifest.architecture.vocab_size == 8011
    assert hidden(old.parent) == [".lock", ".old"]
    with pytest.raises(TargetError, match="exists"):
        export_to(source, old)
    assert check_complete(old) == manifest
    assert hidden(old.parent) == []


@pytest.mark.slow
@posix
def test_a_running_export_is_left_alone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    running = start("write", source, target)
    try:
        manifest, notes = export_to(source, target)
        assert notes == []
        assert hidden(tmp_path) == [".lock", ".partial"]
        assert check_complete(target) == manifest
        # The slower export finds a bundle that did not exist when it started, and keeps it.
        out, _ = running.communicate("\n" * 1000)
        assert out.splitlines()[-1].startswith("TargetError")
        assert check_complete(target) == manifest
        assert hidden(tmp_path) == []
    finally:
        running.kill()
        running.wait()


@pytest.mark.sampled
@posix
@pytest.mark.parametrize("name", ["bundle.int8", "bundle", "other", "[ab]*"])
def test_remains_of_other_targets_are_left_alone(
    source: Path, tmp_path: Path, old: Path, name: str
) -> None:
    killed = old.rename(tmp_path / name)
    kill("aside", source, killed)
    before = everything(tmp_path)
    other = tmp_path / {"bundle.int8": "bundle", "bundle": "bundle.int8"}.get(name, "a")
    _, notes = export_to(source, other)
    assert notes == []
    check_complete(other)
    assert {path: raw for path, raw in everything(tmp_path).items() if path in before} == before
    # The next export to that target removes them.
    notes = Notes()
    with pytest.raises(TargetError, match="exists"):
        export(source, killed, notify=notes)
    assert len(notes) == 2
    check_complete(killed)


@pytest.mark.slow
@posix
def test_a_write_error_leaves_nothing(source: Path, tmp_path: Path, old: Path) -> None:
    for target in (tmp_path / "new", old):
        before = everything(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", _EXPORT, "full", source, target],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(f"TargetError {target} cannot be written: File too large")
        assert "Traceback" not in done.stderr
        assert everything(tmp_path) == before


@posix
def test_interrupted_between_the_two_renames(
    source: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = everything(old), Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        if path.suffix == ".partial":
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(source, old, ExportOptions(force=True))
    assert everything(old) == before
    assert hidden(old.parent) == []


def test_a_target_with_dot_dot_in_its_path(source: Path, old: Path) -> None:
    export(source, old / ".." / old.name, ExportOptions(force=True))
    assert check_complete(old).architecture.vocab_size == 8011
    assert hidden(old.parent) == []


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_an_empty_path(source: Path, name: str) -> None:
    with pytest.raises(ParameterError, match="is not a path"):
        export(source, name)


def test_a_name_that_is_too_long(source: Path, tmp_path: Path) -> None:
    with pytest.raises((TargetError, OSError), match="too long"):
        export(source, tmp_path / ("b" * 300))
    assert list(tmp_path.glob(".*")) == []
