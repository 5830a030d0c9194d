"""The error of static sites: one line that a person can act on."""

from __future__ import annotations

from issun.runtime.errors import IssunError


class WebError(IssunError):
    """The site cannot be made or written, or the bundle cannot run in a browser."""
