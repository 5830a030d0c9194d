"""`issun bench`: measures speed, memory and servers; `report` and `fit` use the results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from issun.benchmarks.engines.registry import ENGINES, PEERS
from issun.cli import fidelity, fit
from issun.cli import options as opt
from issun.cli.extras import needs_extra
from issun.cli.help import Command, Group
from issun.cli.language import mark, note, printable, printable_json, tr
from issun.cli.servers import measure_servers
from issun.runtime import ParameterError
from issun.runtime.errors import check_choice
from issun.runtime.files import user_path

if TYPE_CHECKING:
    from issun.benchmarks.measured import Results


class _RunByDefault(Group):
    """`issun bench BUNDLE` means `issun bench run BUNDLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_RunByDefault, help=tr("Measure speed and memory."), rich_markup_mode=None)

app.command(
    "fidelity",
    cls=Command,
    help=tr("Measure how much a bundle differs from its checkpoint, and record it."),
)(fidelity.run)
app.command(
    "fit",
    cls=Command,
    help=tr("Show which precision and context length fit into a machine's memory."),
)(fit.run)

Sizes = tuple[int, ...]
_NEEDS = mark('Benchmarks need {module}: pip install "issun[bench]"')
_FORMATS = ("terminal", "markdown", "csv", "json", "llama-bench")
_CONCURRENCY, _TIMEOUT = "1,2,4,8", 120.0


def _list(name: str, text: str, low: int, high: int | None = None) -> Sizes:
    """Parse comma-separated numbers such as `128,512`; raises ParameterError."""
    try:
        values = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        values = ()
    if not values or min(values) < low or (high is not None and max(values) > high):
        raise ParameterError(
            "{name} is {value!r}: give comma-separated numbers from {low} to {high}.",
            name=name,
            value=text,
            low=low,
            high="∞" if high is None else f"{high:,}",
        )
    return values


def _contexts(memory: str | None) -> Sizes | None:
    if memory == "none":
        return ()
    return None if memory is None else _list("memory", memory, 1)


def _names(text: str) -> tuple[str, ...]:
    """Comma-separated names without repetitions; `suite` checks them."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


@app.command(
    "run", cls=Command, help=tr("Measure bundles or, with --checkpoint, every installed engine.")
)
def run(
    *,
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUNDLE", help=tr("Bundles (default: the demonstration model).")),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=tr("A checkpoint that every engine converts and runs.")),
    ] = None,
    engines: Annotated[
        str,
        typer.Option(
            help=tr(
                "Engines for the checkpoint: all, or a comma-separated list of {names}; by name "
                "only: {more}."
            ).format(
                names=", ".join(ENGINES),
                more=", ".join(name for name in PEERS if name not in ENGINES),
            )
        ),
    ] = "all",
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help=tr("File for all measurements."))
    ] = Path("issun-bench.json"),
    resume: Annotated[
        bool, typer.Option("--resume", help=tr("Resume the run in the output file."))
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=tr(
                "Folder to keep converted models in (default: next to the output, deleted at "
                "the end)."
            ),
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help=tr("Thread counts to measure (default: physical cores)."))
    ] = None,
    kv_cache: Annotated[
        str | None,
        typer.Option(
            help=tr("KV cache types of the bundles: float32, int8 or both, separated by a comma.")
        ),
    ] = None,
    trust: opt.Trust = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            help=tr(
                "Rounds; every engine runs once in each (default: 6 with --checkpoint, else 3 or "
                "as many as 3 minutes allow)."
            )
        ),
    ] = None,
    prefill: Annotated[
        str | None,
        typer.Option(help=tr("Prompt lengths for prefill, such as 32,128,512 (default: 512).")),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(help=tr("Prompt lengths before decoding, such as 0,128 (default: 128).")),
    ] = None,
    new_tokens: Annotated[int, typer.Option(help=tr("Tokens to decode after each prompt."))] = 64,
    memory: Annotated[
        str | None,
        typer.Option(help=tr("Context lengths for the memory tests, or none (default: 256,1000).")),
    ] = None,
    turn: Annotated[bool, typer.Option("--turn", help=tr("Measure a chat turn too."))] = False,
    seed: Annotated[int, typer.Option(help=tr("Seed for the prompts' token ids."))] = 0,
    form: Annotated[str, typer.Option("--format", help=", ".join(_FORMATS))] = "terminal",
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=tr("Also print ratios to these older results.")),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help=tr(
                "Measure a running server with the OpenAI API instead, such as "
                "http://127.0.0.1:8000; several share one table."
            ),
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=tr("With --url: the model (default: the server's first)."))
    ] = None,
    concurrency: Annotated[
        str, typer.Option(help=tr("With --url: numbers of clients that ask at the same time."))
    ] = _CONCURRENCY,
    timeout: Annotated[
        float, typer.Option(help=tr("With --url: seconds after which an answer has failed."))
    ] = _TIMEOUT,
) -> None:
    """Run the measurements, store them, and print a table."""
    if url:
        opt.refuse(
            mark("--url measures servers: leave out {names}."),
            {
                "bundles": bundles,
                "--checkpoint": checkpoint,
                "--engines": engines != "all",
                "--resume": resume,
                "--work": work,
                "--threads": threads is not None,
                "--kv-cache": kv_cache is not None,
                "--trust": trust,
                "--prefill": prefill is not None,
                "--decode": decode is not None,
                "--memory": memory is not None,
                "--turn": turn,
                "--seed": seed,
                "--compare": compare,
            },
        )
        measure_servers(
            url,
            model=model,
            timeout=timeout,
            concurrency=_list("concurrency", concurrency, 1, 1024),
            rounds=None if rounds is None else _list("rounds", str(rounds), 1)[0],
            tokens=_list("new-tokens", str(new_tokens), 2)[0],
            form=form,
            output=user_path(output),
        )
        return
    opt.refuse(
        mark("Only a server has {names}: name it with --url."),
        {
            "--model": model,
            "--concurrency": concurrency != _CONCURRENCY,
            "--timeout": timeout != _TIMEOUT,
        },
    )
    opt.refuse(
        mark("Only a checkpoint needs {names}: name it with --checkpoint."),
        {} if checkpoint else {"--engines": engines != "all", "--work": work},
    )
    check_choice("format", form, _FORMATS)
    with needs_extra(_NEEDS):
        import cpuinfo  # noqa: F401, PLC0415 - before any work

        from issun.benchmarks import suite  # noqa: PLC0415
        from issun.benchmarks.errors import BenchError  # noqa: PLC0415
        from issun.benchmarks.measured import read_results  # noqa: PLC0415
    older = read_results(user_path(compare)) if compare else None
    request = suite.Request(
        bundles=[user_path(bundle) for bundle in bundles or []],
        checkpoint=user_path(checkpoint) if checkpoint else None,
        engines=_names(engines),
        threads=None if threads is None else _list("threads", threads, 1, 1024),
        kv_caches=(None,) if kv_cache is None else _names(kv_cache),
        trust=trust,
        rounds=None if rounds is None else _list("rounds", str(rounds), 1)[0],
        prefills=None if prefill is None else _list("prefill", prefill, 1),
        depths=None if decode is None else _list("decode", decode, 0),
        contexts=_contexts(memory),
        new_tokens=_list("new-tokens", str(new_tokens), 1)[0],
        turn=turn,
        seed=seed,
    )
    output = user_path(output)
    try:
        found = suite.run(request, output, work and user_path(work), resume=resume, report=_say)
    except KeyboardInterrupt:
        note("[stopped: the measurements so far are in {path}; resume with --resume]", path=output)
        raise
    _show(found, form, older)
    note("All measurements are in {path}.", path=output)
    if all(engine.status != "measured" for engine in found.engines):
        raise BenchError("Nothing could be measured: {path} says why.", path=output)


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _show(found: Results, form: str, older: Results | None) -> None:
    from issun.benchmarks import llama_bench, tables  # noqa: PLC0415
    from issun.benchmarks.compare import compare  # noqa: PLC0415
    from issun.cli.verdict import verdict  # noqa: PLC0415

    shown: dict[str, Callable[[], str]] = {
        "terminal": lambda: tables.terminal(found),
        "markdown": lambda: tables.markdown(found),
        "csv": lambda: tables.csv_text(found),
        "json": lambda: tables.json_text(found),
        "llama-bench": lambda: llama_bench.jsonl(found),
    }
    safe = printable_json if form in ("json", "llama-bench") else printable
    print(safe(shown[form]().rstrip("\n")))
    if form == "terminal":
        for paragraph in verdict(found):
            print(f"\n{printable(paragraph)}")
    if older:
        print(
            compare(found, older),
            file=sys.stderr if form != "terminal" else None,
        )


@app.command("report", cls=Command, help=tr("Write a page with plots from a run's results."))
def report(
    *,
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help=tr("A results file written by `issun bench run`.")),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help=tr("Folder for the page.")),
    ] = Path("report"),
    fidelity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr("Results of `issun bench fidelity --peers`, for two more plots."),
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help=tr("Only print the table as Markdown."))
    ] = False,
) -> None:
    """Write `report.html`, or print the README's table."""
    from issun.benchmarks.distances import read_comparison  # noqa: PLC0415
    from issun.benchmarks.measured import read_results  # noqa: PLC0415
    from issun.benchmarks.report import write_report  # noqa: PLC0415
    from issun.benchmarks.tables import markdown  # noqa: PLC0415

    found = read_results(user_path(results))
    if table:
        print(markdown(found))
        return
    comparison = read_comparison(user_path(fidelity)) if fidelity else None
    print(write_report(found, user_path(output), comparison))
