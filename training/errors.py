"""Errors of the training; each message is one line that says what to do."""

from __future__ import annotations

from issun.runtime.errors import IssunError


class RecordError(IssunError):
    """Data cannot be used as a training record; `values["reason"]` says why."""


class DataError(IssunError):
    """The training data cannot be read, or some of it is not a record."""


class RunError(IssunError):
    """The folder of a training run cannot be used, or was started with other settings."""


class TrainingError(IssunError):
    """The training itself failed."""


def fault(reason: str) -> RecordError:
    """The error for data that is not a record, with this reason."""
    return RecordError("Not a valid record: {reason}", reason=reason)
