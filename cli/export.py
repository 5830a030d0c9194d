"""`issun export`: exports a checkpoint to a bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from issun.benchmarks.sizes import parse_size
from issun.cli.extras import needs_extra
from issun.cli.language import note, tr
from issun.cli.options import utf8
from issun.cli.progress import Bars
from issun.runtime import ParameterError


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
        Path, typer.Option("-o", "--output", metavar="DIR", help=tr("Folder for the new bundle."))
    ],
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
                "Calibration text, like what you will use the model for (default: a short "
                "built-in one)."
            ),
        ),
    ] = None,
    gptq: Annotated[
        bool,
        typer.Option(
            "--gptq", help=tr("Quantize int4 weights with GPTQ: more accurate, but takes longer.")
        ),
    ] = False,
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
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help=tr("Prompt template as JSON."))
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_ID",
            help=tr("Folder or hub id of the tokenizer, if it is not in the checkpoint."),
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help=tr("Revision on the hub."))] = None,
    token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help=tr("Access token for the hub."))
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=tr("Replace an existing bundle."))] = False,
) -> None:
    """Export `source` and print a summary."""
    with needs_extra('Exporting needs {module}: pip install "issun[export]"'):
        from issun.export import ExportOptions, export  # noqa: PLC0415
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
        template=template,
        tokenizer=None if tokenizer is None else utf8(tokenizer),
        force=force,
    )
    started = time.perf_counter()
    names = {
        "write": tr("writing"),
        "calibrate": tr("calibrating"),
        "hash": tr("hashing"),
        "optimum": tr("exporting with Optimum"),
    }
    with Bars(names, in_bytes=True) as progress:
        manifest = export(
            utf8(source),
            output,
            options,
            revision=revision,
            token=token,
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
