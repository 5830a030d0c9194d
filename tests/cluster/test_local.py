"""Processes of this machine: what ends a run, and what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from issun.cluster.driver import Event, Failed, Ready
from issun.cluster.local import LocalWorkers
from issun.cluster.rows import Row
from issun.runtime import ContextError
from tests.conftest import ROOT
from tests.needs import posix


class Refusing:
    """A worker whose rows cannot be answered by any worker."""

    def __init__(self, options: str) -> None:
        self.options = options

    def ready(self) -> str:
        return self.options

    def answer(self, rows: Sequence[Row]) -> Any:
        raise ContextError("{count} rows are too long.", count=len(rows))


def test_an_error_of_an_answer_is_reported_and_the_worker_stays() -> None:
    with closing(LocalWorkers(Refusing, "given", 1)) as workers:

        def event() -> Event:
            while not (found := workers.wait(1.0)):
                pass
            return found[0]

        ready = event()
        assert isinstance(ready, Ready)
        assert ready.info == "given"
        for count in (2, 3):
            workers.give(ready.worker, 0, [(n, b"") for n in range(count)])
            failed = event()
            assert isinstance(failed, Failed)
            assert isinstance(failed.error, ContextError)
            assert str(failed.error) == f"{count} rows are too long."


@posix
def test_a_worker_whose_driver_ends_while_it_loads_ends_without_a_word() -> None:
    code = (
        "from multiprocessing import Pipe\n"
        "from issun.cluster.local import _serve\n"
        "from tests.cluster.test_local import Refusing\n"
        "here, there = Pipe()\n"
        "here.close()\n"
        "_serve(there, Refusing, 'given')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
