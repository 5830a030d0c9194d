"""Exclusive use of a model, which ends at the latest with the caller that holds it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from issun.runtime.errors import BusyError


class UsageLock:
    """Lets one `ExclusiveUse` at a time use the model; calls `on_end` whenever one has ended."""

    def __init__(self, on_end: Callable[[], object]) -> None:
        self.on_end = on_end
        self._lock = threading.RLock()  # reentrant: a signal handler may interrupt its holder
        self._latest: weakref.ref[ExclusiveUse] | None = None

    def acquire(self, use: ExclusiveUse) -> None:
        """Let `use` use the model; raises BusyError if another one does."""
        with self._lock:
            if self.active:
                raise BusyError(
                    "The model is busy: finish, cancel or close the current stream first."
                )
            use.active = True
            self._latest = weakref.ref(use)

    @property
    def active(self) -> bool:
        """Whether the model is in use."""
        latest = None if self._latest is None else self._latest()
        return latest is not None and latest.active


class ExclusiveUse:
    """One use of the model: a context manager, which a stream may also enter and exit itself.

    A use that was interrupted before its exit ends when the object is garbage-collected.
    """

    def __init__(self, usage: UsageLock) -> None:
        self.active = False
        self._usage = usage

    def __enter__(self) -> Self:
        """Begin; raises BusyError while another use is active."""
        try:
            self._usage.acquire(self)
        except BaseException:
            self.active = False
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """End; a second call does nothing."""
        if self.active:
            self.active = False
            self._usage.on_end()
