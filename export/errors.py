"""The errors of the exporter: each is one line that a person can act on."""

from __future__ import annotations

from issun.runtime.errors import IssunError


class CheckpointError(IssunError):
    """The checkpoint cannot be had, read, or turned into this kind of bundle."""


class TargetError(IssunError):
    """The bundle cannot be written there."""


class MissingExtraError(IssunError):
    """This needs a package that is not installed."""
