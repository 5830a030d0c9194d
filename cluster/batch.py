"""Answers all rows of a file; see `run_batch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from issun.cluster.checks import SameWorkers, check_table, only_writer
from issun.cluster.driver import Driver, Progress, rows_of_a_chunk
from issun.cluster.errors import BatchError
from issun.cluster.journal import Answer, Journal
from issun.cluster.layout import choose_layout
from issun.cluster.loading import cpu_digest
from issun.cluster.output import check_suffixes, write_output
from issun.cluster.plan import check_layout
from issun.cluster.pool import start_workers
from issun.cluster.requests import Template, make_error_line
from issun.cluster.rows import Row, Survey, survey
from issun.cluster.worker import Worker, WorkerOptions
from issun.runtime.adapter import Adapter, open_adapters
from issun.runtime.defaults import make_params
from issun.runtime.demonstration import bundle_folder
from issun.runtime.errors import Notify, check_seed, check_switch
from issun.runtime.files import check_output
from issun.runtime.manifest import KVCacheType, Manifest, read_manifest
from issun.runtime.opening import choose_kv_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What is answered, and how.

    `template` makes an instruction of a row's fields. `adapter` answers the rows that name no
    model. `defaults` are sampling parameters, by their names in the API, for rows that do not set
    them. `workers`, `threads` and `slots` are chosen by cores and memory if they are None. `ray` is
    the address of a cluster. `exact` refuses everything that could make an output line depend on
    the workers. Raises ParameterError for invalid values.
    """

    source: Path
    target: Path
    bundle: Path | None = None
    adapter: Adapter | None = None
    kv_cache: KVCacheType | None = None
    trust: bool = False
    template: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    workers: int | None = None
    threads: int | None = None
    slots: int | None = None
    ray: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        """Check numbers and switches."""
        check_layout(self.workers, self.threads, self.slots)
        check_seed(self.seed)
        check_switch("trust", self.trust)
        check_switch("exact", self.exact)


def run_batch(
    options: BatchOptions,
    *,
    report: Callable[[Progress], object] = lambda progress: None,
    notify: Notify = lambda template, **values: None,
) -> Progress:
    """Answer the rows of `options.source` and write `options.target`, in the same order.

    Answered rows are kept in a journal beside the target, from which the same call continues after
    any interruption. Raises BatchError if the batch cannot be started or continued, and what
    `Model.load` raises.
    """
    source, target = options.source, options.target
    check_suffixes(source, target)
    check_output(target, BatchError)
    template = None if options.template is None else Template(options.template)
    check_table(source, template)
    folder = bundle_folder(options.bundle)
    manifest = read_manifest(folder)
    kv_cache = choose_kv_cache(folder, manifest, options.kv_cache)
    model_id = manifest.bundle_id
    if options.adapter:
        model_id = open_adapters([options.adapter], folder, manifest)[options.adapter.name].id
    worker = _worker_options(options, kv_cache, template)
    with only_writer(target):
        found = survey(source, template=template is not None)
        if template and found.kind == "batch":
            raise BatchError("{path} has whole requests, which need no template.", path=source)
        if found.kind == "simple":
            _check_lengths(options.defaults, manifest)
        worker = replace(worker, kind=found.kind)
        with _open_journal(
            options, worker, manifest, found, model_id=model_id, notify=notify
        ) as journal:
            progress = Progress(journal.done, journal.rows, journal.failed, 0)
            if not journal.complete:
                report(progress)
                progress = _answer(
                    options,
                    worker,
                    manifest,
                    journal,
                    found=found,
                    model_id=model_id,
                    report=report,
                    notify=notify,
                )
            found.check_unchanged(source)
            write_output(source, target, journal.lines())
        journal.path.unlink(missing_ok=True)
    return progress


def _check_lengths(defaults: Mapping[str, Any], manifest: Manifest) -> None:
    """Raise ParameterError if a row's fewest new tokens are more than its most."""
    most = defaults.get("max_tokens", make_params(manifest).max_new_tokens)
    make_params(manifest, max_new_tokens=most, min_new_tokens=defaults.get("min_tokens", 0))


def _worker_options(
    options: BatchOptions, kv_cache: KVCacheType, template: Template | None
) -> WorkerOptions:
    return WorkerOptions(
        bundle=options.bundle,
        adapter=options.adapter,
        kv_cache=kv_cache,
        trust=options.trust,
        pinned=True,
        seed=options.seed,
        template=template,
        defaults=options.defaults,
    )


def _open_journal(
    options: BatchOptions,
    worker: WorkerOptions,
    manifest: Manifest,
    found: Survey,
    *,
    model_id: str,
    notify: Notify,
) -> Journal:
    """The journal of this batch; raises BatchError if something is in the way."""
    target = options.target
    path = target.with_name(target.name + ".journal")
    same_bytes = (manifest.precision.name, worker.kv_cache) == ("int8", "int8")
    if options.exact and not same_bytes:
        raise BatchError(
            "--exact needs a bundle of precision int8 with an int8 KV cache; this one is {name} "
            "with a {kv_cache} KV cache.",
            name=manifest.precision.name,
            kv_cache=worker.kv_cache,
        )
    if target.exists() and target.samefile(options.source):
        raise BatchError("{path} is the input: name another file for the output.", path=target)
    if target.exists() and not path.exists():
        raise BatchError("{path} exists already: name another file, or delete it.", path=target)
    header = {  # what the answers depend on
        "format": 2,
        "input": found.sha256,
        "bundle": model_id,
        "seed": worker.seed,
        "KV cache": worker.kv_cache,
        "template": options.template,
        "sampling": msgspec.json.decode(msgspec.json.encode(worker.defaults)),
        "version of ONNX Runtime": version("onnxruntime"),
        "--exact": options.exact or None,
        "kind of CPU": cpu_digest() if options.exact else None,
    }
    journal = Journal(path, header, found.rows)
    if target.exists() and not journal.complete:
        journal.close()
        raise BatchError(
            "{path} exists already, but {journal} is not complete: delete one of them.",
            path=target,
            journal=path,
        )
    if journal.done:
        notify(
            "{done:,} of {rows:,} rows were answered before.", done=journal.done, rows=journal.rows
        )
    if not same_bytes:
        notify(
            "This bundle rounds an answer by what is answered beside it, so another run may differ "
            "in some rows: `python -m issun.benchmarks.rounding BUNDLE` measures in how many. "
            "Precision int8 with an int8 KV cache has no such differences."
        )
    return journal


def _answer(
    options: BatchOptions,
    worker: WorkerOptions,
    manifest: Manifest,
    journal: Journal,
    *,
    found: Survey,
    model_id: str,
    report: Callable[[Progress], object],
    notify: Notify,
) -> Progress:
    """Start workers, which answer what the journal does not have."""
    rows = journal.rows - journal.done
    layout = choose_layout(
        worker,
        manifest,
        rows=rows,
        workers=options.workers,
        threads=options.threads or (1 if options.ray else None),
        slots=options.slots,
        notify=notify,
    )
    worker = replace(worker, threads=layout.threads, slots=layout.slots)
    workers = min(layout.workers, rows)
    pool = start_workers(
        Worker,
        worker,
        local=workers,
        ray=options.ray,
        most=options.workers,
    )

    def make_error(row: Row) -> Answer:
        return Answer(row[0], 500, make_error_line(worker.kind, worker.seed, *row))

    with closing(pool):
        driver = Driver(
            found.read(options.source),
            journal,
            pool,
            chunk_rows=rows_of_a_chunk(rows, workers, layout.slots),
            make_error=make_error,
            check=SameWorkers(model_id, exact=options.exact),
        )
        return driver.run(report)
