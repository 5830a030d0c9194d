"""Read leases, which make writers of mapped files wait (Linux)."""

from __future__ import annotations

import os
import signal
import sys
import weakref
from contextlib import suppress
from pathlib import Path


class Lease:
    """A read lease on a file, if the file system supports it; see fcntl(2), F_SETLEASE.

    Opening the file for writing or truncating it blocks until the lease is released, for at most
    /proc/sys/fs/lease-break-time, by default 45 seconds.
    """

    def __init__(self, path: Path) -> None:
        self.held = False
        if sys.platform == "linux":
            self._descriptor = os.open(path, os.O_RDONLY)
            self._close = weakref.finalize(self, os.close, self._descriptor)
            self.held = self._acquire()

    def broken(self) -> bool:
        """Return whether somebody opened the file for writing; if so, they are let through."""
        if sys.platform != "linux" or not self.held:
            return False
        import fcntl  # noqa: PLC0415

        if fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK:
            return False
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return not self._acquire()  # possible if the other process did not wait

    def release(self) -> None:
        """Release the lease."""
        if sys.platform != "linux" or not self._close.alive:
            return
        import fcntl  # noqa: PLC0415

        self.held = False
        with suppress(OSError):  # a forked process may still have it open
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        self._close()

    def _acquire(self) -> bool:
        if sys.platform != "linux":
            return False
        import fcntl  # noqa: PLC0415

        try:
            # SIGURG, the signal for a lease that is being broken, is ignored by default.
            fcntl.fcntl(self._descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:  # another user's file, one open for writing, a network file system
            return False
        return True
