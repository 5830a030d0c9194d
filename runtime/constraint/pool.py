"""Child processes that try grammars: some small ones would take hours, and all the memory."""

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

MOST_SECONDS = 5.0  # for one trial
_CHILDREN = 2
_START_SECONDS = 30.0  # for a process to start, and to take a vocabulary
_GROWN = 128 << 20  # bytes that a process may keep of one trial before a new one takes its place
_PROGRAM = Path(__file__).with_name("child.py")

Table = dict[str, Any]  # tokens, ends and silent, as the child wants them


class TooLongError(Exception):
    """A trial took too long, and was ended; it knows how many seconds it had."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class DiedError(Exception):
    """The process ended by itself in a trial: as a rule for want of memory."""


class Pool:
    """Some threads, each with a child process; a job gets the child and runs in the thread.

    The threads last as long as the pool, since the kernel ends a child with the thread that started
    it. They begin when there is work.
    """

    def __init__(self, make_table: Callable[[str], Table]) -> None:
        self._make_table = make_table
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open: set[Future[Any]] = set()  # guarded by _lock, as is what follows
        self._children: list[Child] = []
        self._closed = False

    def submit(self, work: Callable[[Child], Any]) -> Future[Any]:
        """Do `work` as soon as a child is free; raises BusyError when the pool is closed."""
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
                    target=_work, args=(self._jobs, child), name="issun-compiler", daemon=True
                ).start()
        return future

    def close(self) -> None:
        """End the children at once; whoever waits gets BusyError."""
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
    """A process that runs `child.py`; started when it is needed, and again when it had to end."""

    def __init__(self, make_table: Callable[[str], Table]) -> None:
        self._make_table = make_table
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._known: set[str] = set()  # vocabularies

    def tried(self, table: str, grammars: list[str]) -> tuple[int | str | None, int]:
        """What `child.py` finds about some grammars, and how many bytes the one found holds.

        Raises TooLongError and DiedError.
        """
        self._be_ready()
        if table != BYTES and table not in self._known:
            self._ask({"table": table, **self._make_table(table)}, _START_SECONDS)
            self._known.add(table)
        answer = self._ask({"try": table, "grammars": grammars}, MOST_SECONDS)
        if answer["bytes"] > _GROWN:
            self.end()
        return answer["found"], answer["bytes"]

    def searched(self, pattern: str, text: str) -> bool | None:
        """Whether `pattern` is found in `text`; None where Python cannot tell.

        Raises as `tried` does.
        """
        self._be_ready()
        found: bool | None = self._ask({"search": pattern, "text": text}, MOST_SECONDS)["found"]
        return found

    def close(self) -> None:
        """End the process, for good; from any thread."""
        with self._lock:
            self._closed = True
            if self._process:
                self._process.kill()

    def _be_ready(self) -> None:
        if self._process and self._process.poll() is not None:  # something ended it between trials
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

    def _ask(self, line: dict[str, Any], seconds: float) -> dict[str, Any]:
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
            raise (TooLongError(seconds) if late.is_set() else DiedError) from error
        finally:
            timer.cancel()
        return answer

    def end(self) -> None:
        """End the process; the next trial starts another one."""
        with self._lock:
            process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()


_Job = tuple["Future[Any]", Callable[[Child], Any]]


def _work(jobs: queue.SimpleQueue[_Job | None], child: Child) -> None:
    """Do what comes, until there is no more; it must not hold the pool, which would never end."""
    while job := jobs.get():
        _do(*job, child)
        del job
    child.end()


def _do(future: Future[Any], work: Callable[[Child], Any], child: Child) -> None:
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
