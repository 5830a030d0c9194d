"""The errors of the training: each is one line that a person can act on."""

from __future__ import annotations

from issun.runtime.errors import IssunError


class RecordError(IssunError):
    """A text cannot be written as a training record; `values["reason"]` says why."""


class DataError(IssunError):
    """The training data cannot be read, or some of it is no record."""


class RunError(IssunError):
    """The folder of a training run cannot be used, or does not fit what is asked."""


class TrainingError(IssunError):
    """The training itself cannot go on."""


def fault(reason: str) -> RecordError:
    """The error of what is no record, for this reason."""
    return RecordError("No record can be made: {reason}", reason=reason)
