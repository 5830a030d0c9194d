"""What ends a program early, as one line and an exit code."""

from __future__ import annotations

import os
import sys

from issun.cli.extras import missing_extra
from issun.cli.interrupts import is_interrupt
from issun.cli.language import describe, note
from issun.runtime.errors import IssunError
from issun.runtime.files import reason_of


def exit_code_of(error: BaseException) -> int | None:
    """2 for a user's mistake, which is reported on stderr, and 130 for Ctrl-C; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if (message := message_of(error)) is None:
        return 130 if isinstance(error, Exception) and is_interrupt(error) else None
    note("error: {message}", message=message)
    if isinstance(error, OSError):
        _discard_output()
    return 2


def message_of(error: BaseException) -> str | None:
    """What is wrong, in one line, where a user can mend it; None for a bug and an interrupt."""
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return named + reason_of(error)
    if isinstance(error, ModuleNotFoundError) and not is_interrupt(error):
        error = missing_extra(error) or error
    return describe(error) if isinstance(error, IssunError) else None


def _discard_output() -> None:
    """Keep the interpreter from failing again over output that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
