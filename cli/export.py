"""`issun export`: exports a checkpoint to a bundle."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from issun.benchmarks.sizes import parse_size
from issun.cli.extras import needs_extra
from issun.cli.inspect import shown_precision
from issun.cli.language import note, tr
from issun.cli.options import utf8
from issun.cli.progress import Bars
from issun.cli.wrapping import columns
from issun.runtime import ParameterError

if TYPE_CHECKING:
    from issun.export import ExportOptions


def run(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help=tr("Folder of a checkpoint, or a model id on the Hugging Face hub."),
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help=tr("Folder for the new bundle.")),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help=tr("float32, int8 or int4 (default: int8)."))
    ] = None,
    kv_cache: Annotated[
        str,
        typer.Option(help=tr("Default KV cache type of the bundle: float32 or int8.")),
    ] = "float32",
    via: Annotated[
        str, typer.Option(help=tr("Exporter: issun, or optimum for comparison."))
    ] = "issun",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr(
                "Calibration text, like what you will use the model for (default: a built-in one)."
            ),
        ),
    ] = None,
    gptq: Annotated[
        bool | None,
        typer.Option(
            "--gptq/--no-gptq",
            help=tr(
                "Fit 4-bit weights to the calibration text with GPTQ, the default, or round them: "
                "much faster, but less accurate."
            ),
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help=tr(
                "Size limit for the weights, such as 900MB: each linear layer gets the best "
                "precision that fits."
            ),
        ),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help=tr(
                "Limit for the KL divergence: each linear layer gets the smallest precision "
                "that keeps it."
            ),
        ),
    ] = None,
    frontier: Annotated[
        bool,
        typer.Option(
            "--frontier",
            help=tr("Print what --budget would reach at several sizes, and write no bundle."),
        ),
    ] = False,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help=tr("Sizes for --frontier, such as 900MB,1GB (default: ten, evenly spaced)."),
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=tr("Print the result of --frontier as JSON."))
    ] = False,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help=tr(
                "Longest context of the bundle; a shorter one takes less memory (default: the "
                "model's, up to 8192)."
            ),
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE",
            help=tr(
                "Prompt template: alpaca-japanese, line, rinna, chatml, plain, or a file in Jinja "
                "or JSON (default: the checkpoint's own)."
            ),
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help=tr("Folder or hub id of the tokenizer, if it is not in the checkpoint."),
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR_OR_ID[=WEIGHT]",
            help=tr(
                "LoRA adapter to merge into the weights, and the weight of its updates (default: "
                "1); may be repeated."
            ),
        ),
    ] = None,
    draft: Annotated[
        bool,
        typer.Option(
            "--draft",
            help=tr(
                "Let the bundle write text for some minutes: chats of the same kind start with "
                "better draft tokens."
            ),
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help=tr("Revision on the hub."))] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help=tr("Access token for the hub."))
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=tr("Replace an existing bundle."))] = False,
) -> None:
    """Export `source` and print a summary."""
    with needs_extra('Exporting needs {module}: pip install "issun[export]"'):
        from issun.export import AdapterSource, ExportOptions  # noqa: PLC0415
    if precision is not None and (budget is not None or max_kl is not None):
        raise ParameterError("Give only one of --precision, --budget and --max-kl.")
    options = ExportOptions(
        precision=cast(Any, precision or "int8"),
        kv_cache=cast(Any, kv_cache),
        via=cast(Any, via),
        calibrate=calibrate,
        gptq=gptq,
        budget=None if budget is None else parse_size(budget),
        max_kl=max_kl,
        context=context,
        template=None if template is None else utf8(template),
        tokenizer=None if tokenizer is None else utf8(tokenizer),
        adapters=tuple(AdapterSource.parse(utf8(text)) for text in adapter or ()),
        draft=draft,
        force=force,
    )
    where = _Where(utf8(source), revision, token)
    if frontier:
        if precision is not None or budget is not None or max_kl is not None:
            raise ParameterError("Give --frontier without --precision, --budget and --max-kl.")
        _print_frontier(where, options, sizes, output, as_json=as_json)
        return
    if sizes is not None or as_json:
        raise ParameterError("--sizes and --json are for --frontier.")
    if output is None:
        raise ParameterError("Give a folder for the new bundle: -o DIR.")
    _export(where, options, output)


@dataclass(frozen=True, slots=True)
class _Where:
    source: str
    revision: str | None
    token: str | None


def _bars() -> Bars:
    names = {
        "write": tr("writing"),
        "calibrate": tr("calibrating"),
        "candidates": tr("quantizing"),
        "measure": tr("measuring"),
        "hash": tr("hashing"),
        "optimum": tr("exporting with Optimum"),
        "draft": tr("writing text"),
    }
    return Bars(names, in_bytes=True)


def _export(where: _Where, options: ExportOptions, output: Path) -> None:
    from issun.export import export  # noqa: PLC0415

    started = time.perf_counter()
    with _bars() as progress:
        manifest = export(
            where.source,
            output,
            options,
            revision=where.revision,
            token=where.token,
            progress=progress,
            notify=note,
        )
    note(
        "{output}: {precision}, {size:,.0f} MB, in {seconds:.1f} s. Next: issun chat {output}",
        output=output,
        precision=manifest.precision.name,
        size=sum(f.size for f in manifest.files.values()) / 1e6,
        seconds=time.perf_counter() - started,
    )
    if options.mixed:
        note("Linear layers: {linears}", linears=shown_precision(manifest.precision.linears))


def _print_frontier(
    where: _Where, options: ExportOptions, sizes: str | None, output: Path | None, *, as_json: bool
) -> None:
    """Print a line for each size."""
    from issun.export import frontier  # noqa: PLC0415

    with _bars() as progress:
        points = frontier(
            where.source,
            [parse_size(size) for size in sizes.split(",")] if sizes else [],
            options,
            work=output or Path("frontier"),
            revision=where.revision,
            token=where.token,
            progress=progress,
            notify=note,
        )
    if as_json:
        print(json.dumps([asdict(point) for point in points], indent=2))
        return
    rows = [
        (tr("budget"), tr("size"), tr("KL divergence"), tr("prefill"), tr("decode"), ""),
        *(
            (
                f"{point.budget / 1e6:,.1f} MB",
                f"{point.size / 1e6:,.1f} MB",
                f"{point.kl:.6f}",
                f"x {point.prefill:.2f}",
                f"x {point.decode:.2f}",
                shown_precision(point.precision),
            )
            for point in points
        ),
    ]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    for *numbers, text in rows:
        cells = [" " * (width - columns(n)) + n for n, width in zip(numbers, widths, strict=False)]
        print("  ".join([*cells, text]).rstrip())
    note(
        "Speeds are estimates relative to plain int8, for ranking only: prefill by the times of "
        "linear layers on one Xeon with AMX, decode by bytes."
    )
