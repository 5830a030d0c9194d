"""What one schema may cost in Python, before there is a grammar that a child process tries."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Self

from issun.runtime.errors import BusyError, CompilerBusyError, ParameterError

MOST_SECONDS = 2.0  # of processor time
_SEARCH_SECONDS = 5.0  # for all searches in child processes
MOST_SCHEMAS = 64  # of one model at a time
_AT_ONCE = 2  # threads whose work all schemas together may be: Python's share one processor
_FREE = 0.01  # seconds of processor time before the first pause: many schemas take less
_PART = 0.005  # and between two
_PAUSE = 0.5  # seconds of one at most
_SIMPLE = 256  # characters of a pattern and of a text that are searched here
_REPEATS = "*+?{"

Search = Callable[[str, str], bool]  # of a pattern in a text; may take seconds


def search(pattern: str, text: str) -> bool:
    """Whether `pattern` is found in `text`; True where Python cannot tell. May take for ever."""
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):
        return True


class Crowd:
    """Counts the schemas of one model that are worked on now, each in a thread of its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.count = 0

    def join(self) -> None:
        """Count one more; raises CompilerBusyError for too many."""
        with self._lock:
            if self.count >= MOST_SCHEMAS:
                raise CompilerBusyError(
                    "{limit} schemas are being prepared already: try again later.",
                    limit=MOST_SCHEMAS,
                )
            self.count += 1

    def leave(self) -> None:
        """Count one less."""
        with self._lock:
            self.count -= 1


class Effort:
    """Counts what a schema costs, in the thread that prepares it.

    Small schemas can ask for billions of steps. `stopped` says whether nobody waits any more, and
    `search` looks for patterns that Python might search for ever.
    """

    def __init__(
        self,
        stopped: Callable[[], bool] = lambda: False,
        search: Search = search,
        crowd: Crowd | None = None,
        name: str = "schema",
    ) -> None:
        self._stopped, self._search, self._crowd = stopped, search, crowd or Crowd()
        self._name, self._began = name, time.thread_time()
        self._next = _FREE  # seconds of processor time at the next pause
        self._resumed = time.monotonic()
        self._left = _SEARCH_SECONDS
        self._ended = False
        self.finds = cache(self._finds)

    def check(self) -> None:
        """Raise ParameterError after too long, and BusyError when it was stopped."""
        if self._ended:
            return
        if self._stopped():
            raise BusyError("The model is being closed.")
        taken = time.thread_time() - self._began
        if taken > self._next:
            over = self._crowd.count / _AT_ONCE - 1  # threads that should pause for one that works
            worked = time.monotonic() - self._resumed  # with the time that others held it up
            time.sleep(min(_PAUSE, max(0.0, over) * worked))
            self._next, self._resumed = taken + _PART, time.monotonic()
        if taken > MOST_SECONDS or self._left < 0:
            raise ParameterError(
                "{name} takes more than {limit:g} s to compile: take a simpler one.",
                name=self._name,
                limit=MOST_SECONDS,
            )

    def __enter__(self) -> Self:
        """Begin; raises CompilerBusyError where too many schemas are worked on."""
        self._crowd.join()
        return self

    def __exit__(self, *_: object) -> None:
        """Count no more: the schema is ready. What was not searched for counts as found."""
        self._ended = True
        self._crowd.leave()

    def _finds(self, pattern: str, text: str) -> bool:
        """Whether `pattern` is found in `text`; True where Python cannot tell."""
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
    """Whether Python's backtracking ends soon: one repetition at most, of one length."""
    if max(len(pattern), len(text)) > _SIMPLE or "|" in pattern:
        return False
    return sum(map(pattern.count, _REPEATS)) <= 1
