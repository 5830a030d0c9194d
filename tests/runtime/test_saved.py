"""Saved conversations: role and turns come back whole, and a bad file changes nothing."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from issun.runtime import Conversation, ConversationError, Model, Turn
from tests.runtime.chats import GREEDY, ROLE


def test_save_and_load(chat: Conversation, model: Model, tmp_path: Path) -> None:
    chat.reply("山は?\n川は?")
    chat.turns.append(Turn("\x1b[31m</s>", '"\\n'))
    path = tmp_path / "saved.json"
    chat.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = Conversation(model, params=GREEDY)
    other.load(path)
    assert (other.role, other.turns) == (chat.role, chat.turns)
    assert other.reply("海は?").text == chat.reply("海は?").text


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
        (b"", "no saved conversation"),
        (b"{", "no saved conversation"),
        (b"[]", "no saved conversation"),
        (b"\xff\xfe", "no saved conversation"),
        (b'{"format": 1, "role": "\xff"}', "no saved conversation"),
        (json.dumps(GOOD)[:-1].encode(), "no saved conversation"),
        (json.dumps({**GOOD, "role": "User:別"}).encode(), "no saved conversation"),
        (json.dumps({**GOOD, "turns": [["問"]]}).encode(), "no saved conversation"),
        (json.dumps({**GOOD, "turns": [["問", None]]}).encode(), "no saved conversation"),
        (json.dumps({**GOOD, "more": 1}).encode(), "no saved conversation"),
        (b'{"format": 1, "x": ' + b"[" * 10**6 + b"]" * 10**6 + b"}", "no saved conversation"),
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


def test_an_endless_file_is_too_large(chat: Conversation) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("there is no /dev/zero")
    with pytest.raises(ConversationError, match="too large"):
        chat.load("/dev/zero")
