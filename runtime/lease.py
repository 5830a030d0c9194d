"""Files that nobody may write to while they are mapped: who would do it waits (Linux)."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from contextlib import suppress
from pathlib import Path


class Lease:
    """A read lease on a file, where its file system has such; see fcntl(2), F_SETLEASE.

    Whoever opens the file for writing, or cuts it off, waits until the lease is given back, at most
    the 45 seconds of /proc/sys/fs/lease-break-time.
    """

    def __init__(self, path: Path) -> None:
        self.held = False
        if sys.platform == "linux":
            self._handle = os.open(path, os.O_RDONLY)
            self._close = weakref.finalize(self, os.close, self._handle)
            self.held = self._take()

    def broken(self) -> bool:
        """Whether somebody wants to write, who is let do it then."""
        if sys.platform != "linux" or not self.held:
            return False
        import fcntl  # noqa: PLC0415

        if fcntl.fcntl(self._handle, fcntl.F_GETLEASE) == fcntl.F_RDLCK:
            return False
        with suppress(OSError):
            fcntl.fcntl(self._handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return not self._take()  # it can be had again where the other one did not wait

    def release(self) -> None:
        """Give it back."""
        if sys.platform != "linux" or not self._close.alive:
            return
        import fcntl  # noqa: PLC0415

        self.held = False
        with suppress(OSError):  # a forked process may have it open too
            fcntl.fcntl(self._handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        self._close()

    def _take(self) -> bool:
        if sys.platform != "linux":
            return False
        import fcntl  # noqa: PLC0415

        try:
            # The signal that says that somebody wants to write: this one is ignored by default.
            fcntl.fcntl(self._handle, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:  # another user's file, one that is open for writing, a network's
            return False
        return True
