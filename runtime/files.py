"""Paths and reading errors as a user means them."""

from __future__ import annotations

import codecs
from pathlib import Path

from issun.runtime.errors import ParameterError


def user_path(path: str | Path) -> Path:
    """`path` with `~` made a home folder; raises ParameterError for what cannot be a path."""
    if not str(path).strip() or "\0" in str(path):
        raise ParameterError("{path!r} is no path.", path=str(path))
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody who has no home here
        return Path(path)


# Longest first: UTF-16's mark is the beginning of UTF-32's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def as_utf8(raw: bytes) -> bytes:
    """What a user's file holds as UTF-8 without a byte-order mark.

    Windows writes such marks, and PowerShell's `>` writes UTF-16. What has no mark is returned as
    it is. Raises UnicodeDecodeError for damaged text behind a mark.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            if encoding == "utf-8-sig":
                return raw.removeprefix(mark)
            return raw.decode(encoding).encode()
    return raw


def read_text(path: str | Path) -> str:
    """The text of a file that the user named; ParameterError says why it cannot be read."""
    path = user_path(path)
    try:
        text = as_utf8(path.read_bytes()).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def reason_of(error: Exception) -> str:
    """Why reading or writing failed, without the path, which the message names."""
    return getattr(error, "strerror", None) or str(error)
