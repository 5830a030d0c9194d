"""Errors of the exporter; each message is one line that says what to do."""

from __future__ import annotations

from issun.runtime.errors import IssunError


class CheckpointError(IssunError):
    """The checkpoint cannot be found, read, or exported with these options."""


class TargetError(IssunError):
    """The bundle cannot be written to the target."""


class MissingExtraError(IssunError):
    """A package that this operation needs is not installed."""
