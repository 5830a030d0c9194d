"""`issun evaluate` with a table of multiple-choice questions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from issun.benchmarks.choices import (
    SUFFIXES,
    ChoiceAnswer,
    ChoiceReport,
    answer_choices,
    read_choices,
    report,
)
from issun.cli.language import mark, note, printable_json, tr
from issun.cli.progress import Bars
from issun.runtime import Model, ParameterError
from issun.runtime.errors import check_range
from issun.runtime.scores import By

_LINES: dict[By, str] = {
    "total": mark("{right:,} of {asked:,} by total log-probability"),
    "token": mark("{right:,} of {asked:,} by log-probability per token"),
    "byte": mark("{right:,} of {asked:,} by log-probability per byte"),
}


def is_choice_table(table: Path | None) -> bool:
    """Whether the name of a table is one of multiple-choice questions."""
    return table is not None and table.suffix.lower() in SUFFIXES


def check_options(*, choices: bool, limit: int | None, listed: bool, given: list[str]) -> None:
    """Raise ParameterError for an option that the other kind of table has, and for a bad limit.

    `given` are the given options that are only for questions that are answered in words.
    """
    if limit is not None:
        check_range("limit", limit, Integral, 1, math.inf)
    if choices and given:
        raise ParameterError("{option} is not for multiple-choice questions.", option=given[0])
    wrong = "--limit" if limit is not None else "--list-choices" if listed else None
    if not choices and wrong:
        raise ParameterError(
            "{option} is for multiple-choice questions: name a table in JSONL or CSV.",
            option=wrong,
        )


def run_choices(
    loading: Mapping[str, Any], table: Path, output: Path | None, *, limit: int | None, listed: bool
) -> None:
    """Answer the table with the model of `Model.load(**loading)`, and print the accuracy."""
    questions = read_choices(table, limit)
    answers: list[ChoiceAnswer] = []
    with Model.load(**loading, notify=note) as model:
        try:
            with Bars({"choose": tr("choosing answers")}) as update:
                for answer in answer_choices(model, questions, listed=listed):
                    answers.append(answer)
                    update("choose", len(answers), len(questions))
        except KeyboardInterrupt:
            note("[stopped; rows completed: {rows}]", rows=len(answers))
            _show(report(model, answers, complete=False, listed=listed), output)
            raise
        _show(report(model, answers, complete=True, listed=listed), output)


def _show(found: ChoiceReport, output: Path | None) -> None:
    """The report as a table, as JSON, or as both."""
    text = printable_json(json.dumps(found.to_dict(), ensure_ascii=False, indent=2))
    if output == Path("-"):
        print(text)
        return
    _print_table(found)
    if output:
        output.write_text(text + "\n", encoding="utf-8")


def _print_table(found: ChoiceReport) -> None:
    if not found.answers:
        return
    print(tr("right   interval (95 %)  right answers"))
    for by, line in _LINES.items():
        low, high = found.interval(by)
        counts = tr(line).format(right=found.right(by), asked=len(found.answers))
        print(f"{found.accuracy(by):6.1%}  {low:6.1%} - {high:6.1%}  {counts}")
    print(tr("a random choice: {rate:.1%}").format(rate=found.chance))
