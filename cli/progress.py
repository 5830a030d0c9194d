"""Progress bars on stderr: one per stage, with counts or bytes and the remaining time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Self


class Bars:
    """Progress bars with a label for each stage; silent if stderr is not a terminal."""

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
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop updating the bars."""
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of a stage are done."""
        if stage not in self._tasks:
            name = self._names.get(stage, stage)
            self._tasks[stage] = self._bars.add_task(name, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)
