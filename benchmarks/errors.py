"""Errors of the benchmarks; each message is one line that says what to do."""

from issun.runtime.errors import IssunError


class TableError(IssunError):
    """A table of questions cannot be read or is inconsistent."""


class BenchError(IssunError):
    """A benchmark cannot be run or resumed, or its results cannot be read."""


def one_line(text: object) -> str:
    """A foreign text without line breaks, control characters and lone surrogates."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())
