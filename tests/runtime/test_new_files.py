"""Files are written completely or not at all, even if the process is killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from issun.runtime import Conversation, ConversationError
from issun.runtime.files import new_file
from tests import needs


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_path_does_not_exist_before_the_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with new_file(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert names(tmp_path) == ["new"]
    if os.name == "posix":
        assert needs.has_mode(path, 0o600)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_a_failure_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_file(tmp_path / "new") as file:
        file.write(b"half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(
    "kind", ["file", pytest.param("link to nothing", marks=needs.links), "folder"]
)
def test_an_existing_file_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "mine"
    if kind == "file":
        path.write_bytes(b"mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(FileExistsError), new_file(path) as file:
        file.write(b"other")
    assert names(tmp_path) == ["mine"]
    assert kind != "file" or path.read_bytes() == b"mine"


def refuse(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    with new_file(tmp_path / "new") as file:
        file.write(b"whole")
    assert (tmp_path / "new").read_bytes() == b"whole"
    assert names(tmp_path) == ["new"]


def test_a_partial_conversation_is_never_visible(
    chat: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill has the effect of stopping before the rename: what was written by then has no name."""
    chat.reply("山は?")

    def killed(*_: object) -> None:
        seen.append((names(tmp_path), sorted(p.stat().st_size for p in tmp_path.iterdir())))
        link(*_)

    seen: list[tuple[list[str], list[int]]] = []
    link = os.link
    monkeypatch.setattr(os, "link", killed)
    chat.save(tmp_path / "saved.json")
    assert ["saved.json" in found for found, _ in seen] == [False, True]
    assert ["saved.json.kv" in found for found, _ in seen] == [False, False]
    assert names(tmp_path) == ["saved.json", "saved.json.kv"]
    with pytest.raises(ConversationError, match="exists"):
        chat.save(tmp_path / "saved.json")
