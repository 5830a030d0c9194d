"""Saves conversations: role and turns as readable JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from issun.runtime.errors import ConversationError
from issun.runtime.files import as_utf8, new_file, open_regular, reason_of
from issun.runtime.text.turn import Turn

_FORMAT_VERSION = 1
_MAX_FILE_BYTES = 16 << 20


class SavedConversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a saved conversation's JSON file."""

    format: int
    role: list[str]
    turns: list[tuple[str, str]]

    @classmethod
    def of(cls, role: Sequence[str], turns: Sequence[Turn]) -> Self:
        """Return a conversation in the format of this version."""
        return cls(_FORMAT_VERSION, list(role), [(turn.message, turn.reply) for turn in turns])


def kv_path(path: Path) -> Path:
    """Return the path of the KV cache of a conversation saved at `path`."""
    return path.parent / f"{path.name}.kv"


def write_conversation(path: Path, saved: SavedConversation) -> None:
    """Write to a new file that only its owner can read.

    Raises ConversationError if it exists or cannot be written, and leaves no partial file.
    """
    text = msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n"
    try:
        with new_file(path) as file:
            file.write(text)
    except FileExistsError:
        raise ConversationError("{path} exists: choose another name.", path=path) from None
    except OSError as error:
        raise ConversationError(
            "{path} cannot be written: {reason}", path=path, reason=reason_of(error)
        ) from error


def read_conversation(path: Path) -> SavedConversation:
    """Read what `write_conversation` wrote; raises ConversationError for anything else."""
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConversationError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    if len(raw) > _MAX_FILE_BYTES:
        raise ConversationError("{path} is not a saved conversation: it is too large.", path=path)
    try:
        raw = as_utf8(raw)
        version = msgspec.json.decode(raw, type=_FormatOnly).format
        if version != _FORMAT_VERSION:
            raise ConversationError(
                "{path} has format {found}; this version of issun reads format {known}.",
                path=path,
                found=version,
                known=_FORMAT_VERSION,
            )
        return msgspec.json.decode(raw, type=SavedConversation)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConversationError(
            "{path} is not a saved conversation: {reason}", path=path, reason=error
        ) from error


class _FormatOnly(msgspec.Struct):
    format: int
