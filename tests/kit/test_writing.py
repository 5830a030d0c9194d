"""The kit's folder: what is in it, and that nothing half-written is left."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from issun.kit import KitError, Target, make_targets, write_kit, writing
from issun.runtime import BundleError
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import JinjaTemplate, read_manifest, verify_hashes
from tests.cli.conftest import issun
from tests.kit.conftest import THIS_PYTHON
from tests.kit.wheelhouse import pip_settings

BUNDLE_BYTES = sum(path.stat().st_size for path in EMBEDDED.iterdir())
WINDOWS = [Target("windows-x86_64", "3.12")]


@pytest.fixture
def small_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded; issun's wheel stands for all."""

    def download(target: Target, issun: Path, folder: Path, notify: object, *, extra: str) -> None:
        assert extra == ""  # the embedded model has neither tokenizer.json nor chat template
        folder.mkdir(parents=True)
        shutil.copy(issun, folder)

    monkeypatch.setattr(writing, "download", download)


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_what_a_kit_holds(made_kit: Path) -> None:
    (wheels,) = (made_kit / "wheels").iterdir()
    texts = {"README.txt", "NOTICE.txt", "chat.sh", "chat.bat"}
    texts |= {"support/start.py", "support/python-needed.txt"}
    bundle = {f"bundle/{path.name}" for path in EMBEDDED.iterdir()}
    held = {f"wheels/{wheels.name}/{path.name}" for path in wheels.iterdir()}
    assert files_of(made_kit) == texts | bundle | held
    assert wheels.name == make_targets([], [])[0].name
    assert {"pip", "issun", "helper"} <= {p.name.partition("-")[0] for p in wheels.iterdir()}
    verify_hashes(made_kit / "bundle", read_manifest(made_kit / "bundle"))
    assert made_kit.stat().st_mode & 0o777 == 0o777 & ~current_umask()
    assert os.access(made_kit / "chat.sh", os.X_OK)


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_texts_are_japanese_and_english_as_windows_reads_them(made_kit: Path) -> None:
    for name in ("README.txt", "NOTICE.txt"):
        raw = (made_kit / name).read_bytes()
        assert raw.startswith(b"\xef\xbb\xbf")
        assert raw.count(b"\n") == raw.count(b"\r\n") > 5
        text = raw.decode("utf-8-sig")
        assert "【日本語】" in text
        assert "[English]" in text
        assert "{" not in text
    readme = (made_kit / "README.txt").read_text(encoding="utf-8-sig")
    assert "issun-embedded (int8)" in readme
    assert f"Python {THIS_PYTHON}" in readme
    assert "MIT" in (made_kit / "NOTICE.txt").read_text(encoding="utf-8-sig")


def test_the_batch_file_is_ascii_with_windows_lines(made_kit: Path) -> None:
    # cmd.exe reads it in the code page of the moment, and loses its place at bare newlines.
    raw = (made_kit / "chat.bat").read_bytes()
    lines = raw.decode("ascii").split("\r\n")
    assert raw.count(b"\n") == len(lines) - 1
    text = "\n".join(lines)
    labels = set(re.findall(r"^:(\w+)", text, re.M))
    assert labels == set(re.findall(r"(?:goto |call :)(\w+)", text)) == {"try", "missing"}
    named = {name.replace("\\", "/") for name in re.findall(r"%~dp0([\w\\.-]+)", text)}
    assert named == {"support/start.py", "support/python-needed.txt", "wheels/windows-"}


def test_the_shell_script_is_ascii_with_unix_lines(made_kit: Path) -> None:
    raw = (made_kit / "chat.sh").read_bytes()
    assert raw.startswith(b"#!/bin/sh\n")
    assert raw.isascii()
    assert b"\r" not in raw


def test_several_targets(tmp_path: Path, wheel: Path, small_wheels: None) -> None:
    kinds = make_targets(["windows-x86_64", "macos-arm64"], ["3.12", "3.13"])
    fetched: list[str] = []

    def notify(template: str, **values: object) -> None:
        fetched.append(template.format(**values))

    size = write_kit(None, tmp_path / "usb", kinds, wheel=wheel, notify=notify)
    assert {path.name for path in (tmp_path / "usb" / "wheels").iterdir()} == {
        kind.name for kind in kinds
    }
    assert fetched == [f"Downloading the wheels for {kind.name}." for kind in kinds]
    held = (path.stat().st_size for path in (tmp_path / "usb").rglob("*") if path.is_file())
    assert size <= sum(held) < size + 20_000
    needed = (tmp_path / "usb" / "support" / "python-needed.txt").read_text(encoding="utf-8")
    assert "見つかりません" in needed
    assert (
        "    Windows (x86_64): Python 3.12, 3.13\n    macOS (arm64): Python 3.12, 3.13\n" in needed
    )


def test_a_bundle_with_a_licence(
    tmp_path: Path, wheel: Path, small_wheels: None, bundle: Callable[[str], Path]
) -> None:
    copy = tmp_path / "b8"
    shutil.copytree(bundle("unscaled"), copy)
    for name in ("LICENSE.txt", "notice", "notes.txt", ".hidden"):
        (copy / name).write_text("CC BY-NC 4.0", encoding="utf-8")
    write_kit(copy, tmp_path / "usb", WINDOWS, wheel=wheel)
    held = files_of(tmp_path / "usb" / "bundle")
    assert held == {p.name for p in copy.iterdir()} - {"notes.txt", ".hidden"}
    told = (tmp_path / "usb" / "NOTICE.txt").read_text(encoding="utf-8-sig")
    assert read_manifest(copy).source.name in told
    assert "does not cover them" in told
    assert "及びません" in told


def test_a_target_that_is_not_empty_is_refused(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / ".hidden").write_text("", encoding="utf-8")
    for name in ("file", "usb", ".", ".."):
        with pytest.raises(KitError, match="exists and is not an empty folder"):
            write_kit(None, tmp_path / name, WINDOWS, wheel=wheel)
    with pytest.raises(KitError, match="There is no folder"):
        write_kit(None, tmp_path / "no" / "usb", WINDOWS, wheel=wheel)
    assert files_of(tmp_path) == {"file", "usb/.hidden"}


def test_an_empty_folder_and_a_link_to_one_are_filled(
    tmp_path: Path, wheel: Path, small_wheels: None
) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "link").symlink_to("usb")
    write_kit(None, tmp_path / "link", WINDOWS, wheel=wheel)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "usb" / "chat.bat").is_file()


def test_a_mount_point_is_refused(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path)
    with pytest.raises(
        KitError, match=r"is a mount point: choose a new folder in it, such as .*/issun"
    ):
        write_kit(None, tmp_path, WINDOWS, wheel=wheel)


def test_a_bundle_that_is_none(tmp_path: Path, wheel: Path, small_wheels: None) -> None:
    with pytest.raises(BundleError, match="There is no folder"):
        write_kit(tmp_path / "b4", tmp_path / "usb", WINDOWS, wheel=wheel)
    damaged = tmp_path / "b8"
    shutil.copytree(EMBEDDED, damaged)
    with (damaged / "model.onnx.data").open("r+b") as file:
        file.write(b"damaged")
    with pytest.raises(BundleError, match=r"b8/model.onnx.data differs from the file"):
        write_kit(damaged, tmp_path / "usb", WINDOWS, wheel=wheel)
    assert {path.name for path in tmp_path.iterdir()} == {"b8"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_what_fails_on_the_way_leaves_nothing(
    tmp_path: Path,
    wheel: Path,
    small_wheels: None,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(writing, "_write_texts", fail)
    expected = KitError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"cannot be written: No space left|^$"):
        write_kit(None, tmp_path / "usb", WINDOWS, wheel=wheel)
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_told_before_anything_is_written(
    tmp_path: Path, wheel: Path, small_wheels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage(tmp_path)._replace(free=BUNDLE_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(
        KitError, match=r"usb needs at least \d+ MB of disk space, but only 7 MB are free\.$"
    ):
        write_kit(None, tmp_path / "usb", WINDOWS, wheel=wheel)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded_where_not_even_the_bundle_fits(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    said: list[str] = []
    with pytest.raises(KitError, match=r"usb needs at least 8 MB .* only 3 MB are free\.$"):
        write_kit(
            None,
            tmp_path / "usb",
            WINDOWS,
            wheel=wheel,
            notify=lambda template, **values: said.append(template),
        )
    assert said == []


@pytest.mark.slow
def test_the_command(tmp_path: Path, wheel: Path) -> None:
    options = ("-o", tmp_path / "usb", "--wheel", wheel, "--platform", "windows-arm64")
    settings = pip_settings(wheel.parent)
    made = issun("kit", *options, "--python", "3.13", ISSUN_LANG="ja", **settings)
    assert (made.code, made.out) == (0, ""), made.err
    assert made.err.startswith("windows-arm64-3.13 用の wheel をダウンロードしています。\n")
    assert made.err.endswith("sh chat.sh（Windows では chat.bat）\n")
    again = issun("kit", *options, ISSUN_LANG="ja", **settings)
    assert (again.code, again.out) == (2, "")
    assert again.err == (
        f"エラー: {tmp_path / 'usb'} はすでにあり、空のフォルダーではありません。"
        "別のフォルダーを指定してください。\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="a small file system is mounted with unshare")
def test_a_disk_that_is_full_is_one_line(tmp_path: Path, wheel: Path) -> None:
    command = [sys.executable, "-P", "-m", "issun", "kit", "-o", "usb", "--wheel", str(wheel)]
    mount = 'mount -t tmpfs -o size=4m none "$0" && cd "$0" && "$@"; code=$?; ls -A; exit $code'
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(tmp_path), *command]
    done = subprocess.run(
        inside,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | pip_settings(wheel.parent) | {"ISSUN_LANG": "en"},
    )
    if done.returncode == 1 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be mounted: {done.stderr}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path / 'usb'} needs at least 8 MB of disk space, but only 4 MB are free.\n"
    )


def test_a_chat_template_needs_an_extra() -> None:
    manifest = read_manifest(EMBEDDED)
    jinja = JinjaTemplate(
        name="", source="", variables={}, takes_system=True, newline="", reserve=1
    )
    assert writing._extra(manifest) == ""
    assert writing._extra(replace(manifest, prompt=jinja)) == "models"
    assert (
        writing._extra(replace(manifest, tokens=replace(manifest.tokens, kind="json"))) == "models"
    )
