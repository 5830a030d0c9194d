"""Ctrl-C: it ends a command at any moment without a word, and an answer, but never a chat."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pexpect
import pytest

from issun.cli.chat import _handle_safely
from issun.cli.extras import needs_extra
from issun.cli.interrupts import is_interrupt
from issun.runtime.errors import IssunError, ParameterError
from tests.cli.conftest import environment
from tests.cli.test_terminal import READY, Start, leave, send, start

__all__ = ["start"]  # a fixture
ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

SCRIPT = Path(sys.executable).with_name("issun")
MOMENTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6)  # seconds
ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "--version": (["--version"], ""),
    "generate": (["generate", "山は?"], ""),
    "generate --regex": (["generate", "山は?", "--regex", "[あ-ん]{5,90}"], ""),
    "chat": (["chat"], "山は?\n川は?\n"),
    "inspect": (["inspect"], ""),
    "bench --help": (["bench", "--help"], ""),
}


def interrupted(command: list[str], said: str, seconds: float) -> tuple[int, str]:
    """What a command's exit code and stderr are that gets SIGINT after `seconds`."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )
    assert process.stdin is not None
    process.stdin.write(said)
    process.stdin.flush()
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def is_python_s_own(errors: str) -> bool:
    """Whether Python was interrupted at its start, before it had run a line of issun's."""
    files = re.findall(r'File "(.+?)", line', errors)
    own = [file for file in files if Path(file).is_relative_to(ROOT) and ".venv" not in file]
    return bool(files) and not own


@pytest.mark.slow
@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("form", ["script", "issun", "issun.cli.main"])
def test_an_interrupt_at_any_moment_is_silent(name: str, form: str) -> None:
    if form == "script" and not SCRIPT.exists():
        pytest.skip("the package's script is not installed")
    head = [str(SCRIPT)] if form == "script" else [sys.executable, "-P", "-m", form]
    arguments, said = ARGUMENTS[name]
    own_start = 0
    for seconds in MOMENTS:
        code, errors = interrupted([*head, *arguments], said, seconds)
        if "Traceback" in errors and is_python_s_own(errors):
            own_start += 1
            continue
        assert "Traceback" not in errors, (seconds, errors)
        assert len(errors.splitlines()) <= 1, (seconds, errors)
        assert code in (-signal.SIGINT, 130, 0), (seconds, code)
    assert own_start < len(MOMENTS)


@pytest.mark.parametrize("error", [ImportError, SystemError, ValueError])
@pytest.mark.parametrize("explicit", [False, True])
def test_an_error_that_came_of_an_interrupt(error: type[Exception], explicit: bool) -> None:
    made = error("numpy._core.multiarray failed to import")
    assert not is_interrupt(made)
    if explicit:
        made.__cause__ = KeyboardInterrupt()
    else:
        made.__context__ = ImportError("half way")
        made.__context__.__context__ = KeyboardInterrupt()
    assert is_interrupt(made)
    made.__context__ = made
    is_interrupt(made)  # ends


def test_imports_of_extras_are_not_interrupted_half_way() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(IssunError, match="nowhere"), needs_extra("It needs {module}."):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            import nowhere  # type: ignore[import-not-found]  # noqa: F401
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup leaves it
        with needs_extra(""):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_may_import_extras() -> None:
    found: list[bool] = []

    def use() -> None:
        with needs_extra(""):
            found.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("a\nb {c}"), "RuntimeError: a b {c}"),
        (MemoryError(), "MemoryError:"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (ParameterError("{name} is bad.", name="x"), "x is bad."),
    ],
)
def test_whatever_a_command_raises_is_told(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def handle(line: str) -> None:
        raise error

    _handle_safely(SimpleNamespace(handle=handle), "/any")  # type: ignore[arg-type]
    assert capsys.readouterr().err == f"error: {told}\n"


def burst(child: pexpect.spawn, count: int = 50, gap: float = 0.003) -> None:
    for _ in range(count):
        os.kill(child.pid, signal.SIGINT)
        time.sleep(gap)


@pytest.mark.slow
def test_bursts_end_the_answer_and_never_the_chat(endless: Path, start: Start) -> None:
    child = start(endless, "--max-new-tokens", "16000")
    for gap in (0.0002, 0.001, 0.01, 0.03):
        send(child, "山は?")
        child.expect("富士山です。 富士山".encode())
        burst(child, gap=gap)
        child.expect(rb"\[stopped")
        child.expect(READY)
        burst(child, gap=gap)  # at the prompt
        child.send(b"/undo\r")
        child.expect("removed: 山は".encode())
    send(child, "/undo")
    child.expect(b"There is no turn to undo")  # none was lost, none came twice
    leave(child)


@pytest.mark.slow
def test_bursts_of_the_key(endless: Path, start: Start) -> None:
    child = start(endless, "--max-new-tokens", "16000")
    send(child, "山は?")
    child.expect("富士山です。 富士山".encode())
    for _ in range(30):
        child.sendintr()
        time.sleep(0.01)
    child.expect(rb"\[stopped")
    time.sleep(1)
    child.send(b"/undo\r")
    child.expect("removed: 山は".encode())
    leave(child)


@pytest.mark.slow
def test_an_interrupt_while_a_conversation_is_saved(
    fuji: Path, start: Start, tmp_path: Path
) -> None:
    child = start(fuji)
    send(child, "山は?")
    child.expect("富士山です。\r\n".encode())
    for number in range(5):
        child.expect(READY)
        child.send(f"/save {tmp_path}/{number}.json\r".encode())
        burst(child, count=30)
        child.expect(rb"\[saved:\s")
    send(child, f"/load {tmp_path}/4.json")
    child.expect(rb"\[turns loaded: 1\]")
    leave(child)


@pytest.mark.slow
def test_no_failing_command_ends_the_chat(fuji: Path, start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "state" / "issun" / "history").mkdir(parents=True)  # cannot be written to
    child = start(fuji)
    send(child, "山は?")
    child.expect("富士山です。\r\n".encode())
    for command, said in (
        ("/save .", "exists: choose another name"),
        ("/save /", "exists: choose another name"),
        (f"/save {'x' * 300}", "File name too long"),
        ("/save /proc/x", "cannot be written"),
        ("/load .", "Is a directory"),
        (f"/load {tmp_path}/pipe", "a pipe or a device"),
        ("/load /dev/tty", "a pipe or a device"),
        ("/load /nowhere", "No such file"),
        (f"/load {'x' * 5000}", "File name too long"),
        ("/set temperature nan", "temperature is"),
        ("/set max_new_tokens " + "9" * 5000, "must be a number"),
        ("/set seed 99999999999999999999999999", "seed is"),
    ):
        child.expect(READY)
        child.send(command.encode() + b"\r")
        child.expect(said.encode())
    send(child, f"/save {tmp_path}/whole.json")
    child.expect(rb"saved:\s")
    send(child, "/undo")
    child.expect("removed: 山は".encode())
    leave(child)
