"""`issun evaluate`: measures how often a bundle answers the questions of a table correctly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from issun.benchmarks.accuracy import EvaluationStopped, Report
from issun.benchmarks.asking import Evaluation
from issun.benchmarks.evaluation import evaluate_bundle
from issun.benchmarks.questions import FORMATS, TEXT_FORMATS, Format, read_table
from issun.cli import options as opt
from issun.cli.choices import check_options, is_choice_table, run_choices
from issun.cli.language import note, printable, printable_json, tr
from issun.cli.progress import Bars
from issun.cluster.loading import LoadOptions
from issun.runtime.errors import check_choice
from issun.runtime.files import check_output, user_path

_NAMES: dict[str, tuple[Format, ...]] = {
    **{name: (name,) for name in FORMATS},
    "both": TEXT_FORMATS,
    "all": FORMATS,
}


def run(
    *,
    context: typer.Context,
    bundle: opt.Bundle = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=tr(
                "Questions as TOML (default: two built-in ones), or multiple-choice questions as "
                "JSONL or CSV."
            ),
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help=tr("Only the first multiple-choice questions."))
    ] = None,
    list_choices: Annotated[
        bool,
        typer.Option("--list-choices", help=tr("List the choices in the prompt of a question.")),
    ] = False,
    samples: Annotated[int, typer.Option(help=tr("Answers to generate per question."))] = 100,
    temperature: Annotated[
        float, typer.Option(help=tr("0 always picks the most likely token."))
    ] = 0.7,
    seed: Annotated[int, typer.Option(help=tr("The same seed gives the same answers."))] = 0,
    formats: Annotated[
        str,
        typer.Option("--format", help=tr("short (no history), chat, both, json or all.")),
    ] = "all",
    max_new_tokens: Annotated[
        int, typer.Option(help=tr("Maximum length of the answer in tokens."))
    ] = 100,
    workers: opt.Workers = None,
    threads: opt.WorkerThreads = None,
    slots: opt.Slots = None,
    ray: opt.Ray = None,
    kv_cache: opt.KVCache = None,
    trust: opt.Trust = False,
    as_json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help=tr("Write all results to this file as JSON; - means stdout."),
        ),
    ] = None,
) -> None:
    """Ask every question many times and print the rate of correct answers."""
    choices = is_choice_table(table)
    check_options(
        choices=choices, limit=limit, listed=list_choices, given=_given_for_words(context)
    )
    check_choice("format", formats, _NAMES)
    output = _output(as_json)
    if choices and table is not None:
        loading = {"path": bundle, "threads": threads, "kv_cache": kv_cache, "trust": trust}
        run_choices(loading, table, output, limit=limit, listed=list_choices)
        return
    evaluation = Evaluation(
        table=read_table(table),
        formats=_NAMES[formats],
        samples=samples,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    if evaluation.repeats < samples:
        note("At temperature 0 all answers to a question are the same, so each is asked once.")
    options = LoadOptions(bundle=bundle, kv_cache=cast(Any, kv_cache), trust=trust)
    try:
        with Bars({"ask": tr("generating answers")}) as update:
            report = evaluate_bundle(
                evaluation,
                options,
                workers=workers,
                threads=threads,
                slots=slots,
                ray=ray,
                progress=lambda done, total: update("ask", done, total),
                notify=note,
            )
    except EvaluationStopped as stopped:
        note("[stopped; rows completed: {rows}]", rows=len(stopped.report.rows))
        _show(stopped.report, output)
        raise
    _show(report, output)


def _given_for_words(context: typer.Context) -> list[str]:
    """The given options that are only for answers in words."""
    found = []
    sampling = ("samples", "temperature", "seed", "formats", "max_new_tokens")
    for name in (*sampling, "workers", "slots", "ray"):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            found.append("--format" if name == "formats" else "--" + name.replace("_", "-"))
    return found


def _output(name: str | None) -> Path | None:
    """The file for the JSON, `-` for stdout; raises ParameterError early if it is invalid."""
    if name is None or name == "-":
        return None if name is None else Path(name)
    path = user_path(opt.utf8(name))
    check_output(path)
    return path


def _show(report: Report, output: Path | None) -> None:
    """The report as a table, as JSON, or as both."""
    text = printable_json(json.dumps(report.to_dict(), ensure_ascii=False, indent=2))
    if output == Path("-"):
        print(text)
        return
    _print_table(report)
    if output:
        output.write_text(text + "\n", encoding="utf-8")


def _print_table(report: Report) -> None:
    if not report.rows:
        return
    print(tr("format  right   interval (95 %)  raw     question -> right word"))
    for row in report.rows:
        low, high = row.interval
        print(
            f"{row.format:<8}{row.rate:6.1%}  {low:6.1%} - {high:6.1%}  {row.raw_rate:6.1%}  "
            + printable(f"{row.question.question} -> {row.question.right[0]}")
        )
    categories = report.by_category()
    for name, rate in categories.items() if len(categories) > 1 else ():
        print(tr("{category}: {rate:.1%}").format(category=printable(name) or "-", rate=rate))
    formats = ", ".join(dict.fromkeys(row.format for row in report.counted))
    print(
        tr("mean of {rows} rows ({formats}): {rate:.1%}").format(
            rows=len(report.counted), formats=formats, rate=report.rate
        )
    )
