"""Measures the throughput of `issun batch` and of `Model.generate_many`.

`python -m issun.benchmarks.batch BUNDLE [--rows 128] [--tokens 32] [--rounds 7] [--workers N]
[--url URL]` alternates between running workers, with the driver and its journal, one process with
all threads, and a server with as many concurrent clients as the process has slots. All get the same
prompts, and every answer has the same number of tokens. Start-up is not included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from issun.benchmarks.errors import BenchError
from issun.benchmarks.openai_stream import NO_TEXT, Server
from issun.benchmarks.servers import PROMPT
from issun.benchmarks.together import Ratios
from issun.cluster.driver import Driver, Event, Ready, rows_of_a_chunk
from issun.cluster.journal import Answer, Journal
from issun.cluster.local import LocalWorkers
from issun.cluster.plan import Layout, free_memory, plan
from issun.cluster.rows import Row
from issun.cluster.worker import Worker, WorkerOptions
from issun.runtime import Model, SamplingParams
from issun.runtime.demonstration import bundle_folder
from issun.runtime.manifest import read_manifest
from issun.runtime.weights.cores import physical_cores


class Running:
    """Workers that are started once, for several batches."""

    def __init__(self, options: WorkerOptions, number: int) -> None:
        self.number = number
        self._workers = LocalWorkers(Worker, options, number)
        self._ready: list[Event] = []
        while len(self._ready) < number:
            self._ready += self._workers.wait(1)
        for event in self._ready:
            if not isinstance(event, Ready):
                raise BenchError("A worker did not start: {reason}", reason=event)
        self._new = True

    def next_batch(self) -> None:
        """Report all workers as ready again."""
        self._new = True

    def wait(self, seconds: float) -> list[Event]:
        """Return what happens within `seconds`."""
        new, self._new = self._new, False
        return self._ready if new else self._workers.wait(seconds)

    def give(self, worker: Any, key: int, rows: Sequence[Row]) -> None:
        """Let a worker answer rows."""
        self._workers.give(worker, key, rows)

    def close(self) -> None:
        """End all workers."""
        self._workers.close()


def rate_of_workers(workers: Running, texts: Sequence[str], tokens: int, slots: int) -> float:
    """New tokens per second of a batch."""
    lines = [json.dumps({"prompt": text}).encode() for text in texts]
    workers.next_batch()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with Journal(Path(folder) / "journal", {}, len(lines)) as journal:
            driver = Driver(
                enumerate(lines),
                journal,
                workers,
                chunk_rows=rows_of_a_chunk(len(lines), workers.number, slots),
                make_error=_raise,
                check=lambda info: None,
            )
            done = driver.run(lambda progress: None)
        seconds = time.perf_counter() - started
    if done.failed or done.tokens != len(lines) * tokens:
        raise BenchError("Not every row was answered with {tokens} tokens.", tokens=tokens)
    return len(lines) * tokens / seconds


def _raise(row: Row) -> Answer:
    raise BenchError("A worker ended at row {row}.", row=row[0])


def rate_of_many(model: Model, texts: Sequence[str], tokens: int, slots: int) -> float:
    """New tokens per second of `generate_many`."""
    params = [
        SamplingParams(max_new_tokens=tokens, min_new_tokens=tokens, seed=seed)
        for seed in range(len(texts))
    ]
    started = time.perf_counter()
    model.generate_many(texts, params, slots=slots)
    return len(texts) * tokens / (time.perf_counter() - started)


def rate_of_server(server: Server, texts: Sequence[str], tokens: int, slots: int) -> float:
    """New tokens per second of a server that `slots` clients ask at the same time."""
    started = time.perf_counter()
    with ThreadPoolExecutor(slots) as clients:
        answers = list(clients.map(partial(server.answer, tokens=tokens), texts))
    seconds = time.perf_counter() - started
    for answer in answers:
        # Tokens of a model with random weights may have no text.
        if answer.error not in ("", NO_TEXT) or answer.tokens != tokens:
            raise BenchError(
                "{url} did not answer with {tokens} tokens: {reason}",
                url=server.url,
                tokens=tokens,
                reason=answer.error or f"it reports {answer.tokens}",
            )
    return len(texts) * tokens / seconds


def layout_of(args: argparse.Namespace) -> Layout:
    """The layout that `issun batch` would choose, except for what is given."""
    manifest = read_manifest(bundle_folder(args.bundle))
    return plan(
        manifest,
        manifest.kv_cache,
        cores=physical_cores(),
        free=free_memory(),
        workers=args.workers,
        threads=args.threads,
        slots=args.slots,
    )


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=32, help="length of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, help="default: as for `issun batch`")
    parser.add_argument("--threads", type=int, help="threads of each worker")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--url", help="also measure a server, for instance .../v1/completions")
    parser.add_argument("--trust", action="store_true", help="as for `issun chat`")
    args = parser.parse_args()
    layout = layout_of(args)
    server = Server(args.url) if args.url else None
    options = WorkerOptions(
        bundle=args.bundle,
        trust=args.trust,
        threads=layout.threads,
        slots=layout.slots,
        pinned=True,
        defaults={"max_tokens": args.tokens, "min_tokens": args.tokens},
    )
    workers = Running(options, layout.workers)
    try:
        with Model.load(args.bundle, trust=args.trust) as model:
            _alternate(args, layout, workers, model, server)
    finally:
        workers.close()


def _alternate(
    args: argparse.Namespace,
    layout: Layout,
    workers: Running,
    model: Model,
    server: Server | None,
) -> None:
    name, slots = f"{layout.workers} workers of {layout.threads} threads", layout.slots
    ratios, to_server = Ratios(name, "generate_many"), Ratios(name, "server")
    warm_up = [PROMPT.format(number=number) for number in range(slots)]
    rate_of_many(model, warm_up, 2, slots)
    for number in range(args.rounds):
        # Other prompts in each round, since workers keep the keys and values of the last ones.
        start = (number + 1) * 10_000
        texts = [PROMPT.format(number=start + row) for row in range(args.rows)]
        of_workers = rate_of_workers(workers, texts, args.tokens, slots)
        ratios.add(rate_of_many(model, texts, args.tokens, slots), of_workers)
        if server:
            to_server.add(rate_of_server(server, texts, args.tokens, slots), of_workers)
    ratios.conclude()
    if server:
        to_server.conclude()


if __name__ == "__main__":
    main()
