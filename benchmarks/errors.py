"""Errors of the benchmarks; each message is one line that says what to do."""

from issun.runtime.errors import IssunError


class TableError(IssunError):
    """A table of questions cannot be read or is inconsistent."""


class BenchError(IssunError):
    """A benchmark cannot be run or resumed, or its results cannot be read."""


def one_line(text: object) -> str:
    """A foreign text without line breaks, control characters and lone surrogates."""
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(printable.split())
