"""`issun chat` on a real terminal: a pseudo-terminal, typed keys, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

from issun.cli.wrapping import columns
from tests.cli.conftest import environment, idle_share

TIMEOUT = 15
READY = rb"\x1b\[\?12l\x1b\[\?25h"  # the prompt has been drawn and the cursor shown
Start = Callable[..., pexpect.spawn]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def run(bundle: Path, *options: str, **changes: str) -> pexpect.spawn:
        return pexpect.spawn(
            sys.executable,
            ["-m", "issun.cli.main", "chat", str(bundle), *options],
            env=environment(
                XDG_STATE_HOME=str(tmp_path / "state"),
                TERM="xterm",
                PROMPT_TOOLKIT_NO_CPR="1",
                **changes,
            ),
            encoding=None,
            timeout=TIMEOUT,
            dimensions=(30, 100),
        )

    return run


def send(child: pexpect.spawn, text: str, end: bytes = b"\r") -> None:
    """Type at the prompt, as soon as it is there."""
    child.expect(READY)
    child.send(text.encode() + end)


def leave(child: pexpect.spawn) -> None:
    send(child, "", end=b"\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_question_answer_and_leaving(fuji: Path, start: Start, tmp_path: Path) -> None:
    child = start(fuji)
    child.expect(b"Ctrl-D exits")
    send(child, "日本で一番高い山は?")
    child.expect("富士山です。\r\n".encode())
    send(child, "")  # an empty line is ignored
    leave(child)
    history = tmp_path / "state" / "issun" / "history"
    assert "日本で一番高い山は?" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o777 == 0o600
    assert history.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_no_history(fuji: Path, start: Start, tmp_path: Path) -> None:
    child = start(fuji, "--no-history")
    send(child, "山は?")
    child.expect("富士山です。\r\n".encode())
    leave(child)
    assert not (tmp_path / "state").exists()


def test_backspace_takes_a_whole_character_back(fuji: Path, start: Start, tmp_path: Path) -> None:
    child = start(fuji)
    send(child, "山あ\x7fは?")
    child.expect("富士山です。\r\n".encode())
    leave(child)
    kept = (tmp_path / "state" / "issun" / "history").read_text(encoding="utf-8")
    assert "+山は?\n" in kept


def test_notices_are_not_broken_within_words(fuji: Path, start: Start) -> None:
    child = start(fuji, ISSUN_LANG="ja")
    child.setwinsize(30, 44)
    child.expect(READY)  # of the cursor alone
    child.expect(READY)
    notice = child.before.decode().partition("\x1b")[0].splitlines()
    assert "終了します。" in "".join(notice)
    assert max(map(columns, notice)) <= 44
    assert {"Ctrl-C", "Ctrl-D"} <= set(re.findall(r"[\w-]+", "\n".join(notice), re.ASCII))
    child.sendeof()
    child.expect(pexpect.EOF)


def test_several_lines(fuji: Path, start: Start) -> None:
    child = start(fuji)
    send(child, "一行目\x1b\r二行目")
    child.expect("富士山です。\r\n".encode())
    send(child, "/undo")
    child.expect("removed: 一行目\r\n二行目".encode())
    leave(child)


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(endless: Path, start: Start) -> None:
    child = start(endless, "--max-new-tokens", "16000")
    send(child, "山は?")
    child.expect("富士山です。 富士山".encode())
    child.sendintr()
    child.expect(rb"\[stopped; /continue continues, /undo removes it\]")
    send(child, "/continue")
    child.expect("富士山です。 富士山".encode())
    child.sendintr()
    child.expect(rb"\[stopped")
    send(child, "/undo")
    child.expect("removed: 山は".encode())
    send(child, "/undo")
    child.expect(b"error: There is no turn to undo.")
    send(child, "", end=b"\x03")  # at the prompt it clears the line
    child.expect(rb"\(Ctrl-D exits\)")
    leave(child)


def test_mistakes_are_told_and_the_chat_goes_on(fuji: Path, start: Start) -> None:
    child = start(fuji, LANG="ja_JP.UTF-8")
    child.expect("Ctrl-D で終了します".encode())
    send(child, "山" * 300)
    child.expect("エラー: 役割とメッセージの".encode())
    send(child, "/set temperature -1")
    child.expect("エラー: temperature は".encode())
    child.expect(READY)
    child.send(b"\xe3\x81\r")
    child.expect("エラー: 入力が UTF-8 ではない".encode())
    send(child, "山は?")
    child.expect("富士山です。\r\n".encode())
    leave(child)


def test_tab_completes_commands(fuji: Path, start: Start) -> None:
    child = start(fuji)
    send(child, "山は?")
    child.expect("富士山です。\r\n".encode())
    for typed, rest, said in (
        ("/un", b"do", "removed: 山は".encode()),
        ("／ｕｎ", b"/undo", b"error: There is no turn to undo."),
        ("/qu", b"it", b""),
    ):
        send(child, typed, end=b"\t")
        child.expect(rest)
        child.send(b"\r")
        child.expect(said)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.slow
def test_answer_alone_goes_to_a_redirected_stdout(fuji: Path, tmp_path: Path, start: Start) -> None:
    out = tmp_path / "out.txt"
    child = pexpect.spawn(
        "bash",
        ["-c", f"'{sys.executable}' -m issun.cli.main chat '{fuji}' --no-history > '{out}'"],
        env=environment(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1"),
        timeout=TIMEOUT,
    )
    send(child, "山は?")
    deadline = time.monotonic() + TIMEOUT
    while not out.read_text(encoding="utf-8").endswith("\n") and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # the next prompt
    child.send(b"\x04")
    child.expect(pexpect.EOF)
    assert out.read_text(encoding="utf-8") == "富士山です。\n"


@pytest.mark.slow
def test_progress_of_an_export_is_shown(fuji: Path, tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        [
            *("-m", "issun.cli.main", "export", str(fuji.parent / "checkpoint")),
            *("-o", str(tmp_path / "b")),
        ],
        env=environment(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1"),
        timeout=TIMEOUT,
        dimensions=(30, 120),
    )
    child.expect(pexpect.EOF)
    screen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.before.decode())
    assert "writing" in screen
    assert re.search(r"\d+(\.\d+)?/\d+\.\d+ MB", screen), screen
    assert "Next: issun chat" in screen


def test_the_demonstration_model_says_what_to_ask() -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "issun.cli.main", "chat", "--no-history"],
        env=environment(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1"),
        timeout=TIMEOUT,
        dimensions=(30, 100),
    )
    child.expect("Try: 日本で一番高い山は\\? フランスの首都は\\? 今何問目\\?".encode())
    child.expect(b"`issun export` makes a bundle of a larger model")
    send(child, "フランスの首都は?")
    child.expect("パリです".encode())
    leave(child)


@pytest.mark.slow
def test_a_chat_that_waits_takes_no_cpu(fuji: Path, start: Start) -> None:
    child = start(fuji, "--threads", "2")
    send(child, "日本で一番高い山は?")
    child.expect("富士山です。\r\n".encode())
    child.expect(READY)
    assert idle_share(child.pid) < 0.01
    child.send(b"\x04")
    child.expect(pexpect.EOF)
