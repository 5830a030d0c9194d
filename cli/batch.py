"""`issun batch`: answers all rows of a file, here or on a cluster."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from issun.cli import options as opt
from issun.cli.extras import needs_extra
from issun.cli.language import note, tr
from issun.cli.progress import Bars
from issun.runtime.files import user_path

if TYPE_CHECKING:
    from issun.cluster.driver import Progress

# The sampling parameters that the API has.
_SAMPLING = tuple(
    name for name in opt.SAMPLING if name not in ("seed", "lookup", "no_repeat_ngram_size")
)


@partial(opt.with_sampling, names=_SAMPLING)
def run(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help=tr("Rows to answer: .jsonl, .csv or .parquet."),
            show_default=False,
        ),
    ],
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=tr("File for the answers: .jsonl, or, if the input is a table, .csv or .parquet."),
            show_default=False,
        ),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=tr("Folder of a bundle (default: the demonstration model)."),
            show_default=False,
        ),
    ] = None,
    adapter: opt.Adapter = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help=tr("Instruction made from a row's fields, such as 'Summarize: {text}'."),
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help=tr("The same seed gives the same answers."))] = 0,
    workers: opt.Workers = None,
    threads: opt.WorkerThreads = None,
    slots: opt.Slots = None,
    ray: opt.Ray = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help=tr("Refuse a bundle or a worker with which an answer could depend on others."),
        ),
    ] = False,
    kv_cache: opt.KVCache = None,
    trust: opt.Trust = False,
    sampling: dict[str, Any],
) -> None:
    """Answer every row; the same command continues an interrupted run."""
    with needs_extra('Batches need {module}: pip install "issun[server]"'):
        from issun.cluster.batch import BatchOptions, run_batch  # noqa: PLC0415
        from issun.cluster.requests import body_fields  # noqa: PLC0415
    options = BatchOptions(
        source=user_path(source),
        target=user_path(target),
        bundle=None if bundle is None else user_path(bundle),
        adapter=opt.one_adapter(adapter),
        kv_cache=cast(Any, kv_cache),
        trust=trust,
        template=None if template is None else opt.utf8(template),
        defaults=body_fields(sampling),
        seed=seed,
        workers=workers,
        threads=threads,
        slots=slots,
        ray=ray,
        exact=exact,
    )
    latest: Progress | None = None
    with Bars({"answer": tr("answering")}) as update:
        show = _Rates(update)

        def report(progress: Progress) -> None:
            nonlocal latest
            latest = progress
            show(progress)

        try:
            done = run_batch(options, report=report, notify=note)
        except KeyboardInterrupt:
            if latest:
                note(
                    "[stopped; {done:,} of {rows:,} rows are answered, and the same command "
                    "continues]",
                    done=latest.done,
                    rows=latest.rows,
                )
            raise
    note(
        "{rows:,} rows are in {path}, {failed:,} of them with errors.",
        rows=done.rows,
        path=options.target,
        failed=done.failed,
    )


class _Rates:
    """Shows progress with the rows and tokens per second of this run."""

    def __init__(self, update: Bars) -> None:
        self._update = update
        self._first: Progress | None = None
        self._started = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Show the progress so far."""
        if self._first is None:
            self._first, self._started = progress, time.monotonic()
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (progress.done - self._first.done) / seconds
        detail = tr(
            "{workers} workers, {rows:.1f} rows/s, {tokens:.0f} tokens/s, {failed:,} errors"
        ).format(
            workers=progress.workers,
            rows=rate,
            tokens=progress.tokens / seconds,
            failed=progress.failed,
        )
        self._update("answer", progress.done, progress.rows, detail)
