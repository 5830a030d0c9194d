"""The errors of the benchmarks: each is one line that a person can act on."""

from issun.runtime.errors import IssunError


class TableError(IssunError):
    """A table of questions cannot be read, or says something that cannot be meant."""


class BenchError(IssunError):
    """A benchmark cannot be run, gone on with, or read."""
