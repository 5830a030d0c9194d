"""Paths and reading errors as a user means them."""

from __future__ import annotations

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


def read_text(path: str | Path) -> str:
    """The text of a file that the user named; ParameterError says why it cannot be read."""
    path = user_path(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            "{path} cannot be read: {reason}", path=path, reason=reason_of(error)
        ) from error


def reason_of(error: Exception) -> str:
    """Why reading or writing failed, without the path, which the message names."""
    return getattr(error, "strerror", None) or str(error)
