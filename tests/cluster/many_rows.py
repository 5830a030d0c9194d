"""`python -m tests.cluster.many_rows ROWS FOLDER`: a batch of so many rows, answered at once.

Prints the peak memory of the driver in bytes; the workers cost nothing.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from issun.cluster import batch, pool
from issun.cluster.driver import Answered, Event, Ready
from issun.cluster.journal import Answer
from issun.cluster.loading import WorkerInfo
from issun.cluster.rows import Row
from issun.cluster.worker import WorkerOptions
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.manifest import read_manifest


class Instant:
    """Two workers in this process."""

    def __init__(self, make: object, options: WorkerOptions, number: int) -> None:
        info = WorkerInfo(read_manifest(EMBEDDED).bundle_id, "", "float32", "", 0, [])
        self.events: list[Event] = [Ready(worker, info) for worker in range(2)]

    def wait(self, seconds: float) -> list[Event]:
        events, self.events = self.events, []
        return events

    def give(self, worker: int, key: int, rows: Sequence[Row]) -> None:
        lines = [Answer(row, 200, b'{"row":%d,"text":"%b"}' % (row, b"x" * 50)) for row, _ in rows]
        self.events.append(Answered(worker, key, lines))

    def close(self) -> None:
        pass


def main(rows: int, folder: Path) -> None:
    source, target = folder / f"in-{rows}.jsonl", folder / f"out-{rows}.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for row in range(rows):
            line = {"custom_id": f"request-{row}", "prompt": "日本で一番高い山は?"}
            file.write(json.dumps(line) + "\n")
    options = batch.BatchOptions(source=source, target=target, slots=1000)
    with mock.patch.object(pool, "LocalWorkers", Instant):
        assert batch.run_batch(options).done == rows
    with target.open("rb") as file:
        for row, line in enumerate(file):
            assert line.startswith(b'{"row":%d,' % row)
    assert row == rows - 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
