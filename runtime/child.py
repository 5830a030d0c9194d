"""Child processes, for work that may take any time and memory, such as a bundle's template."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from issun.runtime.errors import BusyError


class ChildTimeoutError(Exception):
    """A request took more than `seconds`, and the process was killed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class ChildDiedError(Exception):
    """The process ended during a request, usually for lack of memory."""


class ChildProcess:
    """Runs a program that answers each line of JSON with another; for one caller at a time."""

    def __init__(self, program: Path) -> None:
        """Use the Python file `program`, which is not imported and must not need issun."""
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # the process id of the parent
        self._closed = False

    def ensure_running(self) -> bool:
        """Start the process unless it runs; returns whether it was started.

        Raises BusyError after `close`.
        """
        if self._owner != os.getpid():  # this process is a fork, and the pipes are its parent's
            self._process = None
        elif self._process and self._process.poll() is not None:  # it ended between two requests
            self.end()
        if self._process:
            return False
        with self._lock:
            if self._closed:
                raise _closed()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(self._program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
        return True

    def request(self, line: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Return the answer to `line`; without a `line`, what the process writes by itself.

        Raises ChildTimeoutError and ChildDiedError, and BusyError after `close`.
        """
        process = self._process
        assert process and process.stdin and process.stdout  # noqa: S101 - for mypy
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            if line is not None:
                process.stdin.write(json.dumps(line).encode() + b"\n")
                process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            self.end()
            if self._closed:
                raise _closed() from error
            raise (ChildTimeoutError(seconds) if late.is_set() else ChildDiedError) from error
        except BaseException:  # Ctrl-C: the answer would be taken for the next request's
            self.end()
            raise
        finally:
            timer.cancel()
        return answer

    def end(self) -> None:
        """Kill the process; the next request starts another one."""
        with self._lock:
            process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()

    def close(self) -> None:
        """Kill the process for good; can be called from any thread."""
        with self._lock:
            self._closed = True
            if self._process and self._owner == os.getpid():
                self._process.kill()


def _closed() -> BusyError:
    return BusyError("The model is being closed.")
