"""Progress on stderr: a bar per stage on a terminal, a line each half minute elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Self

from issun.benchmarks.progress import clock_time
from issun.cli.language import note, tr

LINE_SECONDS = 25.0  # between two lines, so that half a minute is never exceeded


class Bars:
    """Progress bars with a label for each stage; lines of text if stderr is not a terminal."""

    def __init__(self, names: Mapping[str, str], *, in_bytes: bool = False) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
        )

        self._names = names
        self._tasks: dict[str, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn() if in_bytes else MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )
        self._lines = None if sys.stderr.isatty() else _Lines()

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        if self._lines:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop updating the bars."""
        self._bars.stop()
        if self._lines:
            self._lines.stop()

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        """Show that `done` of `total` units of a stage are done, and `detail` after that."""
        if stage not in self._tasks:
            name = self._names.get(stage, stage)
            self._tasks[stage] = self._bars.add_task(name, total=total, detail="")
        self._bars.update(self._tasks[stage], completed=done, total=total, detail=detail)
        if self._lines:
            self._lines.show(self._names.get(stage, stage), done / max(total, 1), detail)


class _Lines:
    """A thread that prints the current stage, its percentage and time left at regular intervals."""

    def __init__(self) -> None:
        self._stage, self._share, self._detail = "", 0.0, ""
        self._began, self._first = 0.0, 0.0  # when the stage began, and with which share
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def show(self, stage: str, share: float, detail: str) -> None:
        """Take in the state of a stage."""
        if stage != self._stage:
            self._began, self._first = time.monotonic(), share
        self._stage, self._share, self._detail = stage, share, detail

    def _left(self) -> str | None:
        """The time left of the stage, if anything of it has been done."""
        done, seconds = self._share - self._first, time.monotonic() - self._began
        return clock_time(seconds * (1 - self._share) / done) if done > 0 else None

    def _print(self) -> None:
        while not self._done.wait(LINE_SECONDS):
            if self._stage:
                parts = [f"{self._share:.0%}"]
                if left := self._left():
                    parts.append(tr("{left} left").format(left=left))
                parts += [self._detail] if self._detail else []
                note("{stage}: {state}", stage=self._stage, state=", ".join(parts))
