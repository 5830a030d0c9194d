"""The error of the offline kit: one line that a person can act on."""

from __future__ import annotations

from issun.runtime.errors import IssunError


class KitError(IssunError):
    """The kit cannot be put together or written."""
