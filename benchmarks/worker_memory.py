"""Measures the memory of workers of `issun batch` that run beside each other (Linux).

`python -m issun.benchmarks.worker_memory BUNDLE [--workers 2] [--tokens 32] [--ray]` starts one
worker and then as many as `--workers` says, on Ray with `--ray`, and each answers a row. The memory
of workers is the sum of their PSS, in which a page that several processes map is divided among
them. Keys and values, which no two workers share, are left out: the bytes of so many tokens are
known.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil

from issun.benchmarks.errors import BenchError
from issun.benchmarks.servers import PROMPT
from issun.benchmarks.sizes import gigabytes
from issun.cluster.driver import Answered, Event, Ready, Workers
from issun.cluster.pool import start_workers
from issun.cluster.worker import Worker, WorkerOptions
from issun.runtime.decoding.decoder import PREFILL_CHUNK, kv_bytes
from issun.runtime.demonstration import bundle_folder
from issun.runtime.manifest import Manifest, read_manifest


class Used(NamedTuple):
    """Bytes of workers together: PSS without keys and values, of it unshared, and those."""

    pss: int
    unshared: int
    kv: int

    def __str__(self) -> str:
        """One line of output."""
        return (
            f"{gigabytes(self.pss)}, of which {gigabytes(self.unshared)} are unshared "
            f"(and {gigabytes(self.kv)} of keys and values)"
        )


def measure(workers: Workers, number: int, tokens: int, manifest: Manifest) -> Used:
    """Let each worker answer a row with so many tokens, and return what they use after that.

    Raises BenchError if a worker ends.
    """
    ready = [event for event in _events(workers, number) if isinstance(event, Ready)]
    body = {"prompt": PROMPT.format(number=1), "max_tokens": tokens, "min_tokens": tokens}
    row = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": body}
    for event in ready:
        workers.give(event.worker, 0, [(0, json.dumps(row).encode())])
    read = 0
    for answered in _events(workers, number):
        if isinstance(answered, Answered):
            line = json.loads(answered.answers[0].line)
            read += line["response"]["body"]["usage"]["total_tokens"]
    shape = manifest.architecture
    a_token = kv_bytes(shape, manifest.kv_cache) // (shape.n_positions + PREFILL_CHUNK)
    memory = [psutil.Process(event.info.pid).memory_full_info() for event in ready]
    kv = read * a_token
    return Used(sum(m.pss for m in memory) - kv, sum(m.uss for m in memory) - kv, kv)


def _events(workers: Workers, number: int) -> list[Event]:
    """The next event of each worker."""
    events: list[Event] = []
    while len(events) < number:
        events += workers.wait(1)
    for event in events:
        if not isinstance(event, Ready | Answered):
            raise BenchError("A worker ended: {reason}", reason=event)
    return events


def main() -> None:
    """Measure the bundle of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=32, help="length of each answer")
    parser.add_argument("--ray", action="store_true", help="the workers are actors of Ray")
    args = parser.parse_args()
    options = WorkerOptions(bundle=args.bundle, kind="batch")
    manifest = read_manifest(bundle_folder(args.bundle))
    used = []
    for number in (1, args.workers):
        ray = "local" if args.ray else None
        pool = start_workers(Worker, options, local=number, ray=ray, most=number)
        with closing(pool):
            used.append(measure(pool, number, args.tokens, manifest))
        print(f"{number} workers: {used[-1]}", flush=True)
    print(f"{args.workers} workers use {used[1].pss / used[0].pss:.2f} times the memory of one.")


if __name__ == "__main__":
    main()
