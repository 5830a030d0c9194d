"""A kit on another computer: its launcher, and where issun is set up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from issun.kit.support import start
from issun.kit.support.start import Place
from tests.cli.conftest import Result, environment
from tests.kit.conftest import THIS_PYTHON

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="chat.sh is for Linux and macOS")

_FIRST = (
    "初回の準備をしています (1 分ほどかかります)…\n"
    "Setting issun up, which happens once and takes about a minute…\n"
)
ASKED = "日本で一番高い山は?"


Command = tuple[str, ...]


def chat(
    kit: Path, *options: str, around: Command = (), shell: Command = ("/bin/sh",), **changes: str
) -> Result:
    """Ask the kit by its launcher, as the shell has this Python, from another folder."""
    python = str(Path(sys.base_exec_prefix) / "bin")
    settings = {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(kit.parent / "home")} | changes
    done = subprocess.run(
        [*around, *shell, str(kit / "chat.sh"), *options],
        input=f"{ASKED}\n".encode(),
        capture_output=True,
        cwd="/",
        env=environment(**settings),
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def isolated(*kinds: str) -> Command:
    """What runs a command without a network, or with mounts of its own; skips where it cannot."""
    command = ("unshare", "--map-root-user", *kinds)
    try:
        subprocess.run([*command, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{' '.join(command)} is not possible: {error}")
    return command


def place_of(result: Result) -> Path:
    """The folder that holds the environment which answered."""
    assert result.code == 0, result.err
    bundle, asked, helper = result.out.strip().split(" | ")
    assert asked == ASKED
    assert bundle
    return Path(helper).parent.parent


@pytest.mark.slow
def test_the_first_start_sets_up_and_the_second_goes_straight_on(kit: Path) -> None:
    around = isolated("--net")
    first = chat(kit, "--seed", "1", around=around, PIP_INDEX_URL="http://127.0.0.1:9")
    assert first.out.startswith(f"chat --seed 1 | {ASKED} | {kit}/environment/")
    assert first.err == _FIRST
    second = chat(kit, "--role", "親切 な 案内役", around=around)
    assert second.out.startswith(f"chat --role 親切 な 案内役 | {ASKED} | {kit}/environment/")
    assert second.err == ""
    assert chat(kit, shell=()).out.startswith(f"chat | {ASKED} | ")
    assert len(list((kit / "environment").iterdir())) == 1
    assert {path.name for path in kit.parent.iterdir()} == {kit.name}


def test_a_computer_without_that_python_is_told_in_both_languages(kit: Path) -> None:
    tools = kit.parent / "tools"
    tools.mkdir()
    for name in ("dirname", "cat", "uname"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tools / "python3").write_text("#!/bin/sh\nexit 0\n", encoding="ascii")  # not executable
    (tools / f"python{THIS_PYTHON}").write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    (tools / f"python{THIS_PYTHON}").chmod(0o755)  # a stub, as version managers leave them
    told = chat(kit, PATH=str(tools))
    assert (told.code, told.out) == (2, "")
    assert told.err == (kit / "support" / "python-needed.txt").read_text(encoding="utf-8")
    assert "見つかりません" in told.err
    assert "none was found" in told.err
    assert f"Python {THIS_PYTHON}" in told.err


def test_a_kit_for_another_computer_says_so(kit: Path) -> None:
    (wheels,) = (kit / "wheels").iterdir()
    wheels.rename(wheels.with_name("windows-x86_64-3.12"))
    told = chat(kit)
    assert (told.code, told.out) == (2, "")
    assert "見つかりません" in told.err
    done = subprocess.run(
        [sys.executable, "-I", kit / "support" / "start.py"], capture_output=True, check=False
    )
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert lines == [
        f"このキットは windows-x86_64-3.12 用です。このパソコンの Python は {wheels.name} です。",
        f"This kit is for windows-x86_64-3.12; this computer's Python is {wheels.name}.",
    ]


def mounted(kit: Path, options: str) -> Command:
    """The kit's folder and what is beside it, mounted with these options."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,"$1" "$0" && shift && exec "$@"'
    return (*isolated("--mount"), "sh", "-c", script, str(kit), options)


@pytest.mark.slow
def test_a_kit_that_cannot_be_written_is_set_up_beside_it(kit: Path) -> None:
    around = mounted(kit, "ro")
    first = chat(kit, around=around)
    assert place_of(first) == kit.with_name(f"{kit.name}-environment")
    assert place_of(first).stat().st_mode & 0o777 == 0o700
    assert first.err == _FIRST
    assert chat(kit, around=around).err == ""
    assert not (kit / "environment").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", ["ro", "noexec"])
def test_a_stick_that_is_of_no_use_leaves_the_user_s_cache(kit: Path, options: str) -> None:
    around = mounted(kit.parent, options)
    home = kit.parent.parent / "home"
    first = chat(kit, around=around, HOME=str(home), XDG_CACHE_HOME="")
    assert place_of(first) == home / ".cache" / "issun" / "kits"
    assert first.err == _FIRST
    assert chat(kit, around=around, HOME=str(home), XDG_CACHE_HOME="").err == ""
    assert {path.name for path in kit.parent.iterdir()} == {kit.name}
    assert not (kit / "environment").exists()


def test_an_environment_that_others_may_change_is_not_used(tmp_path: Path) -> None:
    for mode, private in ((0o700, True), (0o755, True), (0o777, False), (0o775, False)):
        tmp_path.chmod(mode)
        assert Place(tmp_path, inside=False).may_run() == private
        assert Place(tmp_path, inside=True).may_run()
    (tmp_path / "environment").mkdir()
    assert not Place(tmp_path, inside=False).holds("environment")
    assert Place(tmp_path, inside=True).holds("environment")


def test_without_a_place_each_is_named_with_its_reason(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(kit / "README.txt"))
    small = shutil.disk_usage(kit)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(SystemExit) as ended:
        start.set_up(kit)
    assert ended.value.code == 2
    japanese, english, *reasons = capsys.readouterr().err.splitlines()
    assert japanese == "issun を展開できる場所がありません。"
    assert english == "There is no place to set issun up in."
    assert [line.partition(": ")[0].strip() for line in reasons] == [
        f"{kit}/environment",
        f"{kit}-environment",
        f"{kit}/README.txt/issun/kits",
    ]
    assert reasons[0].endswith("MB が必要 (空き 1 MB) / not enough space")
    assert reasons[2].endswith(": Not a directory")


@pytest.mark.slow
def test_a_damaged_wheel_is_told_and_nothing_is_left(kit: Path) -> None:
    for wheel in (kit / "wheels").rglob("helper-*.whl"):
        wheel.write_bytes(wheel.read_bytes()[:100])
    told = chat(kit)
    assert (told.code, told.out) == (2, "")
    japanese, english = told.err.removeprefix(_FIRST).splitlines()
    assert japanese.startswith("issun を展開できませんでした: ERROR: ")
    assert english.startswith("issun could not be set up: ERROR: ")
    assert list((kit / "environment").iterdir()) == []


@pytest.mark.slow
def test_two_starts_at_a_time_and_one_that_was_killed(kit: Path) -> None:
    old, new = (kit / "environment" / f"{name}.partial" for name in ("old", "new"))
    for left in (old, new):
        (left / "tmp").mkdir(parents=True)
    os.utime(old, (0, 0))
    command = [sys.executable, "-I", str(kit / "support" / "start.py")]
    starts = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in "12"
    ]
    for one in starts:
        assert one.communicate(timeout=300)[0].decode().startswith("chat | ")
        assert one.returncode == 0
    left_over = {path.name for path in (kit / "environment").iterdir() if "partial" in path.name}
    assert left_over == {"new.partial"}
