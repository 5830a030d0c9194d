"""Child processes that compile grammars: some short ones would take hours or all memory."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any

from issun.runtime.constraint.child import BYTES
from issun.runtime.errors import BusyError

MAX_SECONDS = 5.0  # for one trial
_CHILDREN = 2
_START_SECONDS = 30.0  # for a process to start, and to load a vocabulary
_MAX_GROWTH_BYTES = 128 << 20  # by one trial, before the process is replaced
_PROGRAM = Path(__file__).with_name("child.py")

Table = dict[str, Any]  # tokens, ends and silent, in the child's format


class CompileTimeoutError(Exception):
    """A trial took more than `seconds` and was stopped."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class ChildDiedError(Exception):
    """The process ended during a trial, usually for lack of memory."""


class Pool:
    """Worker threads, each with its child process, which it passes to the jobs that it runs.

    The threads are started on demand and live as long as the pool, since the kernel ends a child
    together with the thread that started it.
    """

    def __init__(self, make_table: Callable[[str], Table]) -> None:
        self._make_table = make_table
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open: set[Future[Any]] = set()  # guarded by _lock, as is what follows
        self._children: list[Child] = []
        self._closed = False

    def submit(self, work: Callable[[Child], Any]) -> Future[Any]:
        """Run `work` as soon as a child is free; raises BusyError if the pool is closed."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise _closed()
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            self._jobs.put((future, work))
            if len(self._children) < min(_CHILDREN, len(self._open)):
                child = Child(self._make_table)
                self._children.append(child)
                threading.Thread(
                    target=_run_jobs, args=(self._jobs, child), name="issun-compiler", daemon=True
                ).start()
        return future

    def close(self) -> None:
        """Kill the children; callers that are waiting get BusyError."""
        with self._lock:
            self._closed = True
            waiting, children = list(self._open), self._children
        for future in waiting:
            with suppress(InvalidStateError):
                future.set_exception(_closed())
        for child in children:
            child.close()
            self._jobs.put(None)


class Child:
    """A process that runs `child.py`; started on first use, and again after it ended."""

    def __init__(self, make_table: Callable[[str], Table]) -> None:
        self._make_table = make_table
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._known: set[str] = set()  # vocabularies

    def try_grammars(self, table: str, grammars: list[str]) -> tuple[int | str | None, int]:
        """Return what `child.py` finds about some grammars, and the bytes of the one found.

        Raises TooLongError and DiedError.
        """
        self._ensure_running()
        if table != BYTES and table not in self._known:
            self._request({"table": table, **self._make_table(table)}, _START_SECONDS)
            self._known.add(table)
        answer = self._request({"try": table, "grammars": grammars}, MAX_SECONDS)
        if answer["bytes"] > _MAX_GROWTH_BYTES:
            self.end()
        return answer["found"], answer["bytes"]

    def searched(self, pattern: str, text: str) -> bool | None:
        """Return whether `pattern` is found in `text`; None if Python cannot tell.

        Raises as `try_grammars` does.
        """
        self._ensure_running()
        found: bool | None = self._request({"search": pattern, "text": text}, MAX_SECONDS)["found"]
        return found

    def close(self) -> None:
        """Kill the process for good; can be called from any thread."""
        with self._lock:
            self._closed = True
            if self._process:
                self._process.kill()

    def _ensure_running(self) -> None:
        if self._process and self._process.poll() is not None:  # it ended between two trials
            self.end()
        if self._process is None:
            self._start()

    def _start(self) -> None:
        self._known.clear()
        with self._lock:
            if self._closed:
                raise _closed()
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )

    def _request(self, line: dict[str, Any], seconds: float) -> dict[str, Any]:
        process = self._process
        assert process and process.stdin and process.stdout  # noqa: S101 - for mypy
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            rest = memoryview(json.dumps(line).encode() + b"\n")
            while rest:
                rest = rest[process.stdin.write(rest) :]
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            self.end()
            raise (CompileTimeoutError(seconds) if late.is_set() else ChildDiedError) from error
        finally:
            timer.cancel()
        return answer

    def end(self) -> None:
        """Kill the process; the next trial starts another one."""
        with self._lock:
            process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()


_Job = tuple["Future[Any]", Callable[[Child], Any]]


def _run_jobs(jobs: queue.SimpleQueue[_Job | None], child: Child) -> None:
    """Run jobs until there are no more; must not reference the pool, which could never be freed."""
    while job := jobs.get():
        _run_job(*job, child)
        del job
    child.end()


def _run_job(future: Future[Any], work: Callable[[Child], Any], child: Child) -> None:
    if future.done():  # the pool is closed
        return
    try:
        result = work(child)
    except BaseException as error:
        with suppress(InvalidStateError):
            future.set_exception(error)
    else:
        with suppress(InvalidStateError):
            future.set_result(result)


def _closed() -> BusyError:
    return BusyError("The model is being closed.")
