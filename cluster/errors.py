"""The error of a batch; each message is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

from issun.runtime.errors import IssunError
from issun.runtime.files import reason_of


class BatchError(IssunError):
    """A batch cannot be started, or not be continued."""


def write_error(path: Path, error: OSError) -> BatchError:
    """The error for the journal or the output if the system refuses to write it."""
    if isinstance(error, FileNotFoundError):  # the folder is gone, and the journal with it
        return BatchError("{path} cannot be written: {reason}", path=path, reason=reason_of(error))
    return BatchError(
        "{path} cannot be written: {reason}. The answered rows are kept: solve that, then "
        "repeat the command.",
        path=path,
        reason=reason_of(error),
    )
