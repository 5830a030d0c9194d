"""Chooses the number of workers, and the threads of each, by a short measurement.

Which is faster depends on the model, the kernels and the memory bandwidth. It is measured once for
a bundle whose weights are packed, and stored beside them; smaller bundles answer more rows with
one thread a worker.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

import msgspec

from issun.cluster.driver import Answered, Died, Failed, Ready
from issun.cluster.journal import Answer
from issun.cluster.loading import LoadOptions, WorkerInfo, load
from issun.cluster.local import LocalWorkers
from issun.cluster.plan import MAX_SLOTS, Layout, free_memory, plan
from issun.cluster.rows import Row
from issun.runtime.decoding.sampling import SamplingParams
from issun.runtime.errors import Notify
from issun.runtime.manifest import Manifest
from issun.runtime.weights.cores import physical_cores
from issun.runtime.weights.weight_cache import default_cache, is_packed

# Rows x bytes of weights. With fewer, answering takes not much longer than measuring.
_WORTHWHILE = 100 * 10**9
_PROMPT, _TOKENS = 16, 8  # tokens of a measured prompt and of its answer
_SECONDS = 1.0  # of measuring a layout, at least one round


class _EndedError(Exception):
    """A worker has ended, for lack of memory perhaps."""


def choose_layout(
    options: LoadOptions,
    manifest: Manifest,
    *,
    rows: int,
    workers: int | None,
    threads: int | None,
    slots: int | None,
    notify: Notify,
) -> Layout:
    """Return the layout for `rows` rows on this machine, with what is given.

    Raises ParameterError for values below 1, and what `Model.load` raises.
    """

    kv_cache = options.kv_cache or manifest.kv_cache
    cores, free = physical_cores(), free_memory()
    make = partial(plan, manifest, kv_cache, cores=cores, free=free, workers=workers, slots=slots)
    most = make(threads=threads)
    if workers or threads or most.workers == 1 or not is_packed(manifest):
        return most
    name = f"batch-threads-{kv_cache}-{cores}-{slots or MAX_SLOTS}.json"
    if (stored := _read(manifest, name)) and stored <= cores:
        return make(threads=stored)
    if rows * manifest.size < _WORTHWHILE:
        return most
    notify("Measuring which number of workers is fastest; later runs skip this …")
    more_threads = _doublings(most.threads, cores)
    best = _fastest(options, [most, *(make(threads=number) for number in more_threads)], notify)
    _write(manifest, name, best.threads)
    return best


def _doublings(threads: int, cores: int) -> list[int]:
    """Larger numbers of threads, up to all cores."""
    found = []
    while threads < cores:
        threads = min(2 * threads, cores)
        found.append(threads)
    return found


def _fastest(options: LoadOptions, layouts: list[Layout], notify: Notify) -> Layout:
    """The fastest layout, up to the first one that is slower than the one before it."""
    best, highest = layouts[0], 0.0
    for layout in layouts:
        rate = measure(options, layout)
        notify(
            "workers x threads = {workers} x {threads}: {rate:.0f} tokens/s",
            workers=layout.workers,
            threads=layout.threads,
            rate=rate,
        )
        if rate < highest:
            break
        best, highest = layout, rate
    return best


def measure(options: LoadOptions, layout: Layout) -> float:
    """Return the new tokens per second of a layout, its workers together; 0 if one of them ends.

    Raises what `Model.load` raises.
    """
    options = replace(options, threads=layout.threads, slots=layout.slots, pinned=True)
    with closing(LocalWorkers(SampleWorker, options, layout.workers)) as pool:
        try:
            workers = [event.worker for event in _events(pool, layout.workers)]
            _time_round(pool, workers, tokens=1)  # reads all weights once
            fastest, end = math.inf, time.perf_counter() + _SECONDS
            while time.perf_counter() < end:  # other programs only make rounds slower
                fastest = min(fastest, _time_round(pool, workers, tokens=_TOKENS))
        except _EndedError:
            return 0.0
    return layout.workers * layout.slots * _TOKENS / fastest


def _time_round(pool: LocalWorkers, workers: list[int], *, tokens: int) -> float:
    """Let all workers answer at the same time, and return the seconds that they need."""
    started = time.perf_counter()
    for worker in workers:
        pool.give(worker, 0, [(tokens, b"")])
    _events(pool, len(workers))
    return time.perf_counter() - started


def _events(pool: LocalWorkers, number: int) -> list[Ready | Answered]:
    """The next `number` events; raises the error of a worker, and _EndedError if one has ended."""
    events: list[Ready | Answered] = []
    while len(events) < number:
        for event in pool.wait(1.0):
            match event:
                case Failed(_, error):
                    raise error
                case Died():
                    raise _EndedError
                case _:
                    events.append(event)
    return events


class SampleWorker:
    """Answers made-up prompts in all its slots, as many tokens as a row's index says."""

    def __init__(self, options: LoadOptions) -> None:
        self._model, self._info = load(options)
        self._slots = options.slots

    def ready(self) -> WorkerInfo:
        """Return what this worker runs."""
        return self._info

    def answer(self, rows: list[Row]) -> list[Answer]:
        """Generate answers of one length."""
        ((tokens, _),) = rows
        pieces = self._model.manifest.tokens.pieces
        prompts = [
            [(number * _PROMPT + place) % pieces for place in range(_PROMPT)]
            for number in range(self._slots)
        ]
        params = SamplingParams(max_new_tokens=tokens, min_new_tokens=tokens, seed=0)
        self._model.generate_many(prompts, params, slots=self._slots)
        return []


def _read(manifest: Manifest, name: str) -> int | None:
    """The stored number of threads, if there is one."""
    if (cache := default_cache()) and (entry := cache.find(manifest)):
        with suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
            threads = msgspec.json.decode((entry / name).read_bytes(), type=int)
            return threads if threads > 0 else None
    return None


def _write(manifest: Manifest, name: str, threads: int) -> None:
    if (cache := default_cache()) and (entry := cache.find(manifest)):
        partial = entry / f"{name}.{os.getpid()}"
        with suppress(OSError):  # a read-only folder
            partial.write_bytes(msgspec.json.encode(threads))
            partial.replace(entry / name)
