"""What ends a program early, as one line and an exit code."""

from __future__ import annotations

import os
import sys

from issun.cli.extras import missing_extra
from issun.cli.language import describe, note
from issun.runtime.errors import IssunError
from issun.runtime.files import reason_of


def exit_code_of(error: BaseException) -> int | None:
    """2 for a user's mistake, which is reported on stderr, and 130 for Ctrl-C; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        note("error: {message}", message=named + reason_of(error))
        _discard_output()
        return 2
    if isinstance(error, ModuleNotFoundError):
        error = missing_extra(error) or error
    if isinstance(error, IssunError):
        note("error: {message}", message=describe(error))
        return 2
    return None


def _discard_output() -> None:
    """Keep the interpreter from failing again over output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
