"""`issun bench fit`: shows what fits into a machine's memory, by measured peaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from issun.cli.language import tr
from issun.cli.wrapping import columns
from issun.runtime.files import user_path

if TYPE_CHECKING:
    from issun.benchmarks.fit import Fit
    from issun.benchmarks.measured import Results


def run(
    *,
    results: Annotated[
        Path | None,
        typer.Argument(
            metavar="RESULTS",
            help=tr("A results file written by `issun bench run`."),
            show_default=False,
        ),
    ] = None,
    ram: Annotated[str, typer.Option(help=tr("The machine's memory, such as 2GB."))],
    reserve: Annotated[
        str, typer.Option(help=tr("Memory to leave for the system and other programs."))
    ] = "500MB",
) -> None:
    """Print which engines fit; without results, by the published ones of the 1.3 B model."""
    from issun.benchmarks.errors import one_line  # noqa: PLC0415
    from issun.benchmarks.fit import fit, recommended  # noqa: PLC0415
    from issun.benchmarks.measured import PUBLISHED, read_results  # noqa: PLC0415
    from issun.benchmarks.sizes import gigabytes, parse_size  # noqa: PLC0415
    from issun.runtime.weights.session import rounds_activations  # noqa: PLC0415

    memory, reserved = parse_size(ram), parse_size(reserve, least=0)
    found = read_results(user_path(results) if results else PUBLISHED)
    fits = fit(found, memory, reserve=reserved)
    shown = tr(
        "Memory: {memory}, of which {reserve} stay free for other programs. "
        "Measured {date} on {cpu}."
    )
    print(
        shown.format(
            memory=gigabytes(memory),
            reserve=gigabytes(reserved),
            date=found.date[:10],
            cpu=one_line(found.machine.cpu),
        )
    )
    print(f"\n{_table(found, fits)}\n")
    # Own results say how fast int4 is; the published ones are of a CPU with fast kernels for it.
    slow_int4 = results is None and not rounds_activations()
    best = recommended(fits, slow_int4=slow_int4)
    advice = tr("Use {engine}: a context of {context:,} tokens fits.")
    if not best.context:
        advice = tr("None of the measured engines fits.")
    print(advice.format(engine=one_line(best.engine.label), context=best.context))
    if slow_int4 and best.context:
        print(tr("This CPU has no fast kernels for 4-bit weights: int8 is faster here than int4."))


def _table(results: Results, fits: list[Fit]) -> str:
    """A line for each engine: its name, and three columns of numbers."""
    from issun.benchmarks.errors import one_line  # noqa: PLC0415
    from issun.benchmarks.sizes import gigabytes  # noqa: PLC0415

    rows = [
        (
            tr("engine"),
            tr("context that fits"),
            tr("peak at {context:,}").format(context=results.shape["n_positions"]),
            tr("decode after 128"),
        ),
        *(
            (
                one_line(found.engine.label),
                f"{found.context:,}" if found.context else tr("does not fit"),
                gigabytes(found.full),
                tr("{speed:.1f} tokens/s").format(speed=found.decode) if found.decode else "-",
            )
            for found in fits
        ),
    ]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        cells = [name + " " * (widths[0] - columns(name))]
        for text, width in zip(numbers, widths[1:], strict=True):
            cells.append(" " * (width - columns(text)) + text)
        lines.append("  ".join(cells))
    return "\n".join(lines)
