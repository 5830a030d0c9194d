"""What is refused as a bundle, and why."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from issun.runtime import BundleError, Model
from issun.runtime.manifest import (
    MANIFEST_NAME,
    FileInfo,
    Manifest,
    read_manifest,
    verify_hashes,
    write_manifest,
)
from tests.needs import links

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a bundle that a test may damage."""
    return shutil.copytree(bundle("head-8", "int4"), tmp_path / "bundle")


def change(folder: Path, edit: Change) -> None:
    path = folder / MANIFEST_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Model.load(folder, threads=1)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_sound_bundle(folder: Path) -> None:
    manifest = read_manifest(folder)
    verify_hashes(folder, manifest)
    assert {*manifest.files, MANIFEST_NAME} == {path.name for path in folder.iterdir()}
    for name, info in manifest.files.items():
        assert info.size == (folder / name).stat().st_size


def test_no_folder(tmp_path: Path) -> None:
    assert f"no folder {tmp_path / 'no'}" in refusal(tmp_path / "no")


def test_no_bundle(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert f"{tmp_path} is not a bundle: it has no issun.json" in message
    assert "issun export" in message


def test_a_file_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a bundle" in refusal(tmp_path / "file")


def test_the_manifest_is_a_folder(folder: Path) -> None:
    (folder / MANIFEST_NAME).unlink()
    (folder / MANIFEST_NAME).mkdir()
    assert "cannot be read" in refusal(folder)


def test_a_newer_format_asks_for_an_update(folder: Path) -> None:
    change(folder, lambda content: content.update(format=3))
    assert "has format 3, but this version of issun reads formats up to 2: update" in refusal(
        folder
    )


def test_a_newer_format_with_other_fields_asks_for_an_update(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text('{"format": 7, "graphs": 3}')
    assert "has format 7" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format": "1"}',
        b'{"format": 1}',
        b'{"format": 1, "exporter": "\xff"}',
        b"\xff\xfe\x00",
        b'{"format": 1, "x": ' + b"[" * 400_000 + b"]" * 400_000 + b"}",
    ],
    ids=range(9),
)
def test_damaged_json(folder: Path, content: bytes) -> None:
    (folder / MANIFEST_NAME).write_bytes(content)
    message = refusal(folder)
    assert str(folder / MANIFEST_NAME) in message
    assert "export the bundle again" in message


def test_figures_nested_too_deep(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    text = path.read_text(encoding="utf-8")
    assert '"fidelity": {}' in text
    path.write_text(
        text.replace('"fidelity": {}', '"fidelity": {"a":' + "[" * 5000 + "]" * 5000 + "}")
    )
    assert "is damaged" in refusal(folder)


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / MANIFEST_NAME).open("ab") as file:
        file.write(b" " * (1 << 20))
    assert "larger than a manifest" in refusal(folder)


@pytest.mark.parametrize("field", ["architecture", "files", "tokens", "prompt", "graphs"])
def test_a_field_is_missing(folder: Path, field: str) -> None:
    change(folder, lambda content: content.pop(field))
    assert f"`{field}`" in refusal(folder)


def test_truncated_data(folder: Path) -> None:
    path = folder / "model.onnx.data"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    message = refusal(folder)
    assert f"{path} has {size - 1:,} bytes instead of {size:,}" in message


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "spiece.model"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{folder / name} is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "spiece.model"])
@links
def test_a_symlink_is_not_accepted(folder: Path, name: str) -> None:
    shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    assert f"{folder / name} is missing" in refusal(folder)


OUTSIDE = ["../model.onnx", "/etc/passwd", "sub/model.onnx", "..", ".", "", "a\\b", "./model.onnx"]


def name_in(where: str, name: str) -> Change:
    def edit(content: dict[str, Any]) -> None:
        if where == "files":
            content["files"][name] = content["files"]["model.onnx"]
        elif where == "graphs":
            content["graphs"]["float32"] = name
        else:
            content["tokens"]["file"] = name

    return edit


@pytest.mark.parametrize("where", ["files", "graphs", "tokens"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_outside_the_folder(folder: Path, where: str, name: str) -> None:
    shutil.copy(folder / "model.onnx", folder.parent / "model.onnx")
    change(folder, name_in(where, name))
    assert f"names {name!r}, which is not a file in the bundle" in refusal(folder)


@pytest.mark.parametrize("where", ["graphs", "tokens"])
def test_a_file_without_size_and_hash(folder: Path, where: str) -> None:
    shutil.copy(folder / "model.onnx", folder / "other.onnx")
    change(folder, name_in(where, "other.onnx"))
    assert "does not list other.onnx" in refusal(folder)


def test_a_nul_in_a_name(folder: Path) -> None:
    change(folder, name_in("files", "a\0b"))
    assert "is missing" in refusal(folder)


def test_the_default_graph_is_absent(folder: Path) -> None:
    change(folder, lambda content: content.update(kv_cache="int8"))
    assert "no graph for its KV cache type int8" in refusal(folder)


def test_an_absent_graph_names_those_present(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"no graph for the KV cache type int8; it has float32\."):
        Model.load(folder, kv_cache="int8")


def test_bad_default_sampling(folder: Path) -> None:
    change(folder, lambda content: content.update(sampling={"temperature": -1}))
    assert "sampling defaults are invalid: temperature is -1" in refusal(folder)
    change(folder, lambda content: content.update(sampling={"warmth": 1}))
    assert "sampling defaults are invalid" in refusal(folder)


def test_hashes_detect_a_changed_byte(folder: Path) -> None:
    manifest = read_manifest(folder)
    for name in manifest.files:
        path = folder / name
        raw = path.read_bytes()
        middle = len(raw) // 2
        path.write_bytes(raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :])
        assert read_manifest(folder) == manifest  # the sizes match
        with pytest.raises(BundleError, match="differs from the file that was exported"):
            verify_hashes(folder, manifest)
        path.write_bytes(raw)
    verify_hashes(folder, manifest)


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


def test_bundle_id_depends_on_what_affects_results(manifest: Manifest) -> None:
    replace = msgspec.structs.replace
    ids = {manifest.bundle_id}
    name, info = next(iter(manifest.files.items()))
    for changed in (
        replace(manifest, files={**manifest.files, name: FileInfo(info.size, "0" * 64)}),
        replace(manifest, prompt=replace(manifest.prompt, without_input="{instruction}")),
        replace(
            manifest,
            prompt=replace(manifest.prompt, chat=replace(manifest.prompt.chat, reserve=1)),
        ),
        replace(manifest, tokens=replace(manifest.tokens, eos=None)),
        replace(manifest, architecture=replace(manifest.architecture, n_positions=7)),
        replace(manifest, kv_cache="int8"),
    ):
        ids.add(changed.bundle_id)
    assert len(ids) == 7
    assert all(len(i) == 32 for i in ids)


def test_bundle_id_does_not_depend_on_fidelity_figures(manifest: Manifest, folder: Path) -> None:
    measured = msgspec.structs.replace(manifest, fidelity={"kl": 0.001}, exporter="issun 9")
    assert measured.bundle_id == manifest.bundle_id
    write_manifest(folder, measured)
    again = read_manifest(folder)
    assert again == measured
    assert again.bundle_id == manifest.bundle_id


def test_a_manifest_is_written_atomically(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_manifest(folder, msgspec.structs.replace(manifest, fidelity={"kl": 1.0}))
    assert sorted(folder.iterdir()) == before
    assert read_manifest(folder) == manifest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_a_manifest_that_is_no_file_is_refused_at_once(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
        path.unlink()
        make(path)
        assert "cannot be read" in refusal(folder)
        if path.is_dir():
            path.rmdir()
            path.touch()


def test_files_of_any_size_are_not_read(folder: Path) -> None:
    for name in (read_manifest(folder).tokens.file, read_manifest(folder).graphs["float32"]):
        size = (folder / name).stat().st_size
        os.truncate(folder / name, 8 << 30)  # sparse
        change(folder, lambda content, name=name: content["files"][name].update(size=8 << 30))
        assert name in refusal(folder)
        os.truncate(folder / name, size)
        change(
            folder, lambda content, name=name, size=size: content["files"][name].update(size=size)
        )
