"""Saved conversations: role and turns are restored, and an invalid file changes nothing."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import Conversation, ConversationError, Model, ParameterError, Turn
from tests.needs import has_mode, links, posix
from tests.runtime.chats import GREEDY, ROLE


def test_save_and_load(chat: Conversation, model: Model, tmp_path: Path) -> None:
    chat.reply("山は?\n川は?")
    chat.turns.append(Turn("\x1b[31m</s>", '"\\n'))
    path = tmp_path / "saved.json"
    chat.save(path)
    assert has_mode(path, 0o600)
    other = Conversation(model, params=GREEDY)
    other.load(path)
    assert (other.role, other.turns) == (chat.role, chat.turns)
    assert other.reply("海は?").text == chat.reply("海は?").text


def test_nothing_is_predicted_from_an_earlier_conversation(
    chat: Conversation, tmp_path: Path
) -> None:
    chat.reply("山は?\n川は?")
    saved = tmp_path / "saved.json"
    chat.save(saved)
    seen = chat._predictions
    chat.load(saved)
    assert chat._predictions is not seen


@links
def test_save_refuses_an_existing_file(chat: Conversation, tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    path.write_text("mine")
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "elsewhere.json")
    for taken in (path, link):
        with pytest.raises(ConversationError, match="exists: choose another name"):
            chat.save(taken)
    assert path.read_text() == "mine"
    assert not (tmp_path / "elsewhere.json").exists()


def test_save_to_nowhere(chat: Conversation, tmp_path: Path) -> None:
    with pytest.raises(ConversationError, match="cannot be written"):
        chat.save(tmp_path / "no" / "saved.json")


GOOD: dict[str, Any] = {"format": 1, "role": ["User:別"], "turns": [["問", "答"]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a saved conversation"),
        (b"{", "not a saved conversation"),
        (b"[]", "not a saved conversation"),
        (b"\xff\xfe", "not a saved conversation"),
        (b'{"format": 1, "role": "\xff"}', "not a saved conversation"),
        (json.dumps(GOOD)[:-1].encode(), "not a saved conversation"),
        (json.dumps({**GOOD, "role": "User:別"}).encode(), "not a saved conversation"),
        (json.dumps({**GOOD, "turns": [["問"]]}).encode(), "not a saved conversation"),
        (json.dumps({**GOOD, "turns": [["問", None]]}).encode(), "not a saved conversation"),
        (json.dumps({**GOOD, "more": 1}).encode(), "not a saved conversation"),
        (b'{"format": 1, "x": ' + b"[" * 10**6 + b"]" * 10**6 + b"}", "not a saved conversation"),
        (json.dumps({**GOOD, "format": 2}).encode(), "has format 2; .* reads format 1"),
        (json.dumps({"format": 2, "chats": {}}).encode(), "has format 2; .* reads format 1"),
        (b" " * (16 << 20) + json.dumps(GOOD).encode(), "too large"),
    ],
    ids=range(14),
)
def test_a_bad_file_changes_nothing(
    chat: Conversation, tmp_path: Path, content: bytes, message: str
) -> None:
    chat.reply("山は?")
    turns = list(chat.turns)
    path = tmp_path / "saved.json"
    path.write_bytes(content)
    with pytest.raises(ConversationError, match=message) as caught:
        chat.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (chat.role, chat.turns) == (ROLE, turns)


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_a_file_that_cannot_be_read(chat: Conversation, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConversationError, match="cannot be read"):
        chat.load(tmp_path / name)


@pytest.mark.parametrize("kind", ["/dev/zero", "/dev/tty", "pipe", "socket", "link to a pipe"])
@posix
def test_pipes_and_devices_are_not_read(chat: Conversation, tmp_path: Path, kind: str) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / "special"
    if kind.endswith("pipe"):
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to(tmp_path / "pipe")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif not path.exists():
        pytest.skip(f"there is no {kind}")
    with pytest.raises(ConversationError, match="cannot be read: it is a pipe or a device"):
        chat.load(path)


@pytest.mark.parametrize("name", [".", "/", "..", "./", "//", "a/..", "~"])
def test_a_folder_is_not_overwritten(
    chat: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConversationError, match="exists: choose another name"):
        chat.save(name)
    with pytest.raises(ConversationError, match="cannot be read: Is a directory"):
        chat.load(name)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("length", [252, 253, 255, 256, 5000])
def test_long_names(chat: Conversation, model: Model, tmp_path: Path, length: int) -> None:
    chat.reply("山は?")
    path = tmp_path / ("x" * length)
    if length == 252:
        assert chat.save(path) > 0
    elif length <= 255:  # too long with .kv appended
        with pytest.raises(ConversationError, match=r"written, but not the KV cache .*too long"):
            chat.save(path)
    else:
        with pytest.raises(ConversationError, match="cannot be written: File name too long"):
            chat.save(path)
        with pytest.raises(ConversationError, match="cannot be read: File name too long"):
            chat.load(path)
        assert not list(tmp_path.iterdir())
        return
    assert len(list(tmp_path.iterdir())) == (2 if length == 252 else 1)
    other = Conversation(model, params=GREEDY)
    other.load(path)
    assert (other.role, other.turns) == (chat.role, chat.turns)


@posix
@pytest.mark.parametrize("most", [0, 20, 200, 5000])
def test_no_partial_file_is_left_at_a_file_size_limit(
    chat: Conversation, tmp_path: Path, most: int
) -> None:
    import resource

    chat.reply("山は?")
    chat.turns.append(Turn("川は?", "長い" * 50))
    path = tmp_path / "saved.json"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(ConversationError, match=r"File too large"):
            chat.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == (["saved.json"] if most == 5000 else [])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_no_partial_file_is_left_by_an_interrupt(
    chat: Conversation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("issun.runtime.files._move_into_place", fail)
    with pytest.raises(ConversationError if error is OSError else error):
        chat.save(tmp_path / "saved.json")
    assert not list(tmp_path.iterdir())


def test_an_invalid_role_changes_nothing(
    chat: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> list[str]:
        raise ParameterError("no")

    chat.reply("山は?")
    turns = list(chat.turns)
    monkeypatch.setattr(chat.model.prompts, "system_lines", fail)
    with pytest.raises(ParameterError):
        chat.reset("猫")
    assert (chat.role, chat.turns) == (ROLE, turns)
