"""Progress on stderr: a bar per stage on a terminal, a line each half minute elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Self

from issun.cli.language import note

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
            self._lines.state = (self._names.get(stage, stage), done / max(total, 1), detail)


class _Lines:
    """A thread that prints the current stage and its percentage at regular intervals."""

    def __init__(self) -> None:
        self.state: tuple[str, float, str] | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _print(self) -> None:
        while not self._done.wait(LINE_SECONDS):
            if self.state:
                stage, share, detail = self.state
                if detail:
                    note("{stage}: {share:.0%}, {detail}", stage=stage, share=share, detail=detail)
                else:
                    note("{stage}: {share:.0%}", stage=stage, share=share)
