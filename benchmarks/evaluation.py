"""Evaluates a bundle with all cores, or with a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from issun.benchmarks.accuracy import EvaluationStopped, Progress, Report, evaluate, make_report
from issun.benchmarks.asking import CHUNK, Asker, Evaluation
from issun.benchmarks.errors import BenchError
from issun.cluster.checks import SameWorkers
from issun.cluster.driver import Driver, Workers
from issun.cluster.journal import Answer
from issun.cluster.layout import choose_layout
from issun.cluster.loading import LoadOptions, WorkerInfo, load
from issun.cluster.plan import check_layout
from issun.cluster.pool import start_workers
from issun.cluster.rows import Row
from issun.runtime import Completion, Model
from issun.runtime.demonstration import bundle_folder
from issun.runtime.errors import Notify
from issun.runtime.manifest import read_manifest
from issun.runtime.opening import choose_kv_cache

# Answers x bytes of weights. With fewer, starting workers takes longer than they save. With the
# demonstration model, 30 GB take 18 s of CPU time on two threads, and 9 s with two workers.
_WORTHWHILE = 10 * 10**9
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorOptions(LoadOptions):
    """What a worker loads, and what it asks."""

    evaluation: Evaluation


class Evaluator:
    """A worker that generates answers by their numbers; raises what `Asker` raises."""

    def __init__(self, options: EvaluatorOptions) -> None:
        model, self._info = load(options)
        self._asker, self._slots = Asker(model, options.evaluation), options.slots

    def ready(self) -> WorkerInfo:
        """Return what this worker runs."""
        return self._info

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """Return the answers to a chunk; raises what `Model.generate_many` raises."""
        answers: list[Answer] = []

        def add(number: int, completion: Completion) -> None:
            text = completion.text.encode()
            answers.append(Answer(number, _OK, text, completion.timings.new_tokens))

        self._asker.ask([number for number, _ in rows], slots=self._slots, on_complete=add)
        return answers


def evaluate_bundle(
    evaluation: Evaluation,
    options: LoadOptions,
    *,
    workers: int | None = None,
    threads: int | None = None,
    slots: int | None = None,
    ray: str | None = None,
    progress: Progress = lambda done, total: None,
    notify: Notify = lambda template, **values: None,
) -> Report:
    """Evaluate the bundle of `options` with several workers, or in this process if one would do.

    `workers`, `threads` and `slots` are chosen as for `issun batch` if they are None; `ray` is the
    address of a cluster. The answers are the same with any number of workers. Raises BatchError if
    the workers cannot be started, and what `accuracy.evaluate` and `Model.load` raise.
    """
    check_layout(workers, threads, slots)
    folder = bundle_folder(options.bundle)
    manifest = read_manifest(folder)
    kv_cache = choose_kv_cache(folder, manifest, options.kv_cache)
    options = replace(options, kv_cache=kv_cache)
    layout = choose_layout(
        options,
        manifest,
        rows=evaluation.size,
        workers=workers,
        threads=threads or (1 if ray else None),
        slots=slots,
        notify=notify,
    )
    number = min(layout.workers, ceil(evaluation.size / CHUNK))
    if workers is None and evaluation.size * manifest.size < _WORTHWHILE:
        number = 1
    if ray is None and number == 1:
        with Model.load(
            options.bundle,
            threads=threads,
            kv_cache=kv_cache,
            trust=options.trust,
            notify=notify,
        ) as model:
            return evaluate(model, evaluation, slots=layout.slots, progress=progress)
    worker = EvaluatorOptions(
        bundle=options.bundle,
        kv_cache=kv_cache,
        trust=options.trust,
        threads=layout.threads,
        slots=layout.slots,
        pinned=True,
        evaluation=evaluation,
    )
    texts = Texts(evaluation.size)
    report = partial(make_report, evaluation, texts.texts, manifest, kv_cache)
    try:
        with closing(start_workers(Evaluator, worker, local=number, ray=ray, most=workers)) as pool:
            _collect(texts, pool, manifest.bundle_id, progress)
    except KeyboardInterrupt as error:
        raise EvaluationStopped(report()) from error
    return report()


def _collect(texts: Texts, workers: Workers, bundle: str, progress: Progress) -> None:
    """Let workers generate all answers."""
    driver = Driver(
        ((number, b"") for number in range(texts.rows)),
        texts,
        workers,
        chunk_rows=CHUNK,
        make_error=_refuse,
        check=SameWorkers(bundle, exact=False),
        in_flight=1,  # a worker generates one chunk after another
    )
    driver.run(lambda found: progress(found.done, found.rows))


def _refuse(row: Row) -> Answer:
    raise BenchError(
        "Every worker that generated answer {number} ended: there may be too little memory. Use "
        "fewer --workers.",
        number=row[0] + 1,
    )


class Texts:
    """The texts of the answers so far, by number."""

    failed = 0

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.texts: dict[int, str] = {}

    @property
    def done(self) -> int:
        """How many answers there are."""
        return len(self.texts)

    @property
    def complete(self) -> bool:
        """Whether all answers are there."""
        return self.done == self.rows

    def __contains__(self, number: int) -> bool:
        """Whether an answer is there."""
        return number in self.texts

    def add(self, answers: Iterable[Answer]) -> None:
        """Keep answers; a repeated one has the same text."""
        self.texts |= {answer.row: answer.line.decode() for answer in answers}
