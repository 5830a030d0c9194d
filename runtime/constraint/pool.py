"""Child processes that compile grammars: some short ones would take hours or all memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any

from issun.runtime.child import ChildProcess
from issun.runtime.constraint.child import BYTES
from issun.runtime.errors import BusyError

MAX_SECONDS = 5.0  # for one trial
_CHILDREN = 2
_START_SECONDS = 30.0  # for a process to start, and to load a vocabulary
_MAX_GROWTH_BYTES = 128 << 20  # by one trial, before the process is replaced
_PROGRAM = Path(__file__).with_name("child.py")

Table = dict[str, Any]  # tokens, ends and silent, in the child's format


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
        self._process = ChildProcess(_PROGRAM)
        self._known: set[str] = set()  # vocabularies

    def try_grammars(self, table: str, grammars: list[str]) -> tuple[int | str | None, int]:
        """Return what `child.py` finds about some grammars, and the bytes of the one found.

        Raises ChildTimeoutError and ChildDiedError.
        """
        self._ensure_running()
        if table != BYTES and table not in self._known:
            made = {"table": table, **self._make_table(table)}
            self._process.request(made, _START_SECONDS)
            self._known.add(table)
        answer = self._process.request({"try": table, "grammars": grammars}, MAX_SECONDS)
        if answer["bytes"] > _MAX_GROWTH_BYTES:
            self.end()
        return answer["found"], answer["bytes"]

    def searched(self, pattern: str, text: str) -> bool | None:
        """Return whether `pattern` is found in `text`; None if Python cannot tell.

        Raises as `try_grammars` does.
        """
        self._ensure_running()
        asked = {"search": pattern, "text": text}
        found: bool | None = self._process.request(asked, MAX_SECONDS)["found"]
        return found

    def close(self) -> None:
        """Kill the process for good; can be called from any thread."""
        self._process.close()

    def end(self) -> None:
        """Kill the process; the next trial starts another one."""
        self._process.end()

    def _ensure_running(self) -> None:
        if self._process.ensure_running():
            self._known.clear()


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
