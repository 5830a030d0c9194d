"""Progress on stderr: a bar per stage on a terminal, a line each half minute elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple, Self

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


class _State(NamedTuple):
    """A stage, what share of it is done, and when and with which share it began."""

    stage: str
    share: float
    detail: str
    began: float
    first: float

    def left(self) -> str | None:
        """The time left, if anything of the stage has been done since it began."""
        done, seconds = self.share - self.first, time.monotonic() - self.began
        return clock_time(max(0.0, seconds * (1 - self.share) / done)) if done > 0 else None


class _Lines:
    """A thread that prints the current stage, its percentage and time left at regular intervals."""

    def __init__(self) -> None:
        self._state: _State | None = None  # replaced as a whole, since a thread reads it
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def show(self, stage: str, share: float, detail: str) -> None:
        """Take in the state of a stage."""
        begun = self._state if self._state and self._state.stage == stage else None
        began, first = (begun.began, begun.first) if begun else (time.monotonic(), share)
        self._state = _State(stage, share, detail, began, first)

    def _print(self) -> None:
        while not self._done.wait(LINE_SECONDS):
            if state := self._state:
                left = state.left()
                parts = [f"{state.share:.0%}", left and tr("{left} left").format(left=left)]
                text = tr(", ").join(filter(None, [*parts, state.detail]))
                note("{stage}: {state}", stage=state.stage, state=text)
