"""Who works with a model: one caller at a time, and never longer than that caller exists."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

from issun.runtime.errors import BusyError


class Usage:
    """Lets one `Work` at a time use the model; `on_end` is called whenever one has ended."""

    def __init__(self, on_end: Callable[[], object]) -> None:
        self.on_end = on_end
        self._lock = threading.RLock()  # reentrant: a signal handler may interrupt its holder
        self._latest: weakref.ref[Work] | None = None

    def begin(self, work: Work) -> None:
        """Let `work` use the model; raises BusyError while another does."""
        with self._lock:
            if self.active:
                raise BusyError(
                    "The model is answering: finish, cancel or close that stream first."
                )
            work.active = True
            self._latest = weakref.ref(work)

    @property
    def active(self) -> bool:
        """Whether somebody uses the model."""
        latest = None if self._latest is None else self._latest()
        return latest is not None and latest.active


class Work:
    """One use of the model: a context manager, or begun and ended by a stream.

    Nothing has to be given back: a use that was interrupted before it could be ended counts only
    as long as the object exists.
    """

    def __init__(self, usage: Usage) -> None:
        self.active = False
        self._usage = usage

    def __enter__(self) -> Self:
        """Begin; raises BusyError while another use is active."""
        try:
            self._usage.begin(self)
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
