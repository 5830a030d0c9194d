"""Limits on preparing a schema in Python, before a child process compiles its grammar."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Self

from issun.runtime.errors import BusyError, CompilerBusyError, ParameterError

MAX_SECONDS = 2.0  # of processor time
_SEARCH_SECONDS = 5.0  # for all searches in child processes
MAX_SCHEMAS = 64  # of one model at a time
_MAX_PARALLEL = 2  # threads' worth of work for all schemas: Python's threads share one processor
_FIRST_SLICE = 0.01  # seconds of processor time before the first pause: many schemas take less
_SLICE = 0.005  # seconds of processor time between pauses
_MAX_PAUSE = 0.5  # seconds
_SIMPLE = 256  # characters of a pattern and of a text that are searched in this process
_REPEATS = "*+?{"

Search = Callable[[str, str], bool]  # of a pattern in a text; may take seconds


def search(pattern: str, text: str) -> bool:
    """Return whether `pattern` is found in `text`; True if Python cannot tell. May never end."""
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return True


class ActiveSchemas:
    """Counts the schemas of one model that are being prepared, each in its own thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.count = 0

    def join(self) -> None:
        """Count one more; raises CompilerBusyError if there are too many."""
        with self._lock:
            if self.count >= MAX_SCHEMAS:
                raise CompilerBusyError(
                    "{limit} schemas are already being prepared: try again later.",
                    limit=MAX_SCHEMAS,
                )
            self.count += 1

    def leave(self) -> None:
        """Count one less."""
        with self._lock:
            self.count -= 1


class Effort:
    """Limits the work on one schema, in the thread that prepares it.

    Even a small schema can require billions of steps. `stopped` returns whether the work should be
    abandoned. `search` is used for patterns with which Python's own search might never end.
    """

    def __init__(
        self,
        stopped: Callable[[], bool] = lambda: False,
        search: Search = search,
        active: ActiveSchemas | None = None,
        name: str = "schema",
    ) -> None:
        self._stopped, self._search, self._active = stopped, search, active or ActiveSchemas()
        self._name, self._began = name, time.thread_time()
        self._next_pause = _FIRST_SLICE  # seconds of processor time at the next pause
        self._resumed = time.monotonic()
        self._left = _SEARCH_SECONDS
        self._ended = False
        self.finds = cache(self._finds)

    def check(self) -> None:
        """Raise ParameterError if the limit is exceeded, and BusyError if the work was stopped."""
        if self._ended:
            return
        if self._stopped():
            raise BusyError("The model is being closed.")
        used = time.thread_time() - self._began
        if used > self._next_pause:
            excess = self._active.count / _MAX_PARALLEL - 1  # threads to pause for each that works
            worked = time.monotonic() - self._resumed  # includes waiting for the other threads
            time.sleep(min(_MAX_PAUSE, max(0.0, excess) * worked))
            self._next_pause, self._resumed = used + _SLICE, time.monotonic()
        if used > MAX_SECONDS or self._left < 0:
            raise ParameterError(
                "{name} takes more than {limit:g} s to compile: simplify it.",
                name=self._name,
                limit=MAX_SECONDS,
            )

    def __enter__(self) -> Self:
        """Begin; raises CompilerBusyError if too many schemas are being prepared."""
        self._active.join()
        return self

    def __exit__(self, *_: object) -> None:
        """End: the schema is ready. From now on, patterns not searched for count as found."""
        self._ended = True
        self._active.leave()

    def _finds(self, pattern: str, text: str) -> bool:
        """Return whether `pattern` is found in `text`; True if Python cannot tell."""
        if _is_simple(pattern, text):
            return search(pattern, text)
        if self._ended:
            return True
        self.check()
        started = time.monotonic()
        try:
            return self._search(pattern, text)
        finally:
            self._left -= time.monotonic() - started


def _is_simple(pattern: str, text: str) -> bool:
    """Return whether Python's backtracking ends soon: at most one repetition, on short texts."""
    if max(len(pattern), len(text)) > _SIMPLE or "|" in pattern:
        return False
    return sum(map(pattern.count, _REPEATS)) <= 1
