"""What a subcommand needs beyond the plain installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from issun.runtime.errors import IssunError


@contextmanager
def needs_extra(message: str) -> Iterator[None]:
    """Around imports: a `{module}` that is missing becomes the error `message`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise IssunError(message, module=error.name) from error
