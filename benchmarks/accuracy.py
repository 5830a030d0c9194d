"""Evaluates how often a bundle answers right: asks every question of a table many times.

Seeds are fixed, so that bundles are compared with the same random numbers and a run can be
repeated. A right answer contains a right word and no wrong one.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from statistics import fmean
from typing import Any

from issun.benchmarks.asking import Asker, Evaluation
from issun.benchmarks.questions import (
    FORMATS,
    TEXT_FORMATS,
    Format,
    Question,
    Table,
    plain,
    read_table,
)
from issun.cluster.plan import MAX_SLOTS
from issun.runtime import Completion, Model
from issun.runtime.manifest import Manifest

__all__ = [
    "FORMATS",
    "TEXT_FORMATS",
    "EvaluationStopped",
    "Format",
    "Question",
    "Report",
    "Row",
    "Table",
    "evaluate",
    "judge",
    "paired_interval",
    "read_table",
    "wilson",
]

Progress = Callable[[int, int], object]  # answers so far, and in total
_Z = 1.959963984540054  # 95 %


@dataclass(frozen=True, slots=True)
class Row:
    """Results of a question in one format: the verdict of each answer, and the distinct answers."""

    question: Question
    format: Format
    verdicts: tuple[bool, ...]
    raw: int
    answers: dict[str, int]

    @property
    def asked(self) -> int:
        """The number of answers."""
        return len(self.verdicts)

    @property
    def right(self) -> int:
        """The number of right answers."""
        return sum(self.verdicts)

    @property
    def rate(self) -> float:
        """The share of right answers."""
        return self.right / self.asked

    @property
    def raw_rate(self) -> float:
        """The share of answers with a right word, wrong words ignored."""
        return self.raw / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the rate."""
        return wilson(self.right, self.asked)

    def to_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return {
            "question": self.question.question,
            "input": self.question.input,
            "right": self.question.right,
            "wrong": self.question.wrong,
            "category": self.question.category,
            "format": self.format,
            "asked": self.asked,
            "right_answers": self.right,
            "raw_answers": self.raw,
            "rate": self.rate,
            "raw_rate": self.raw_rate,
            "interval": self.interval,
            "answers": self.answers,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of a run and its settings; incomplete after Ctrl-C."""

    rows: list[Row]
    complete: bool
    samples: int
    temperature: float
    seed: int
    max_new_tokens: int
    bundle: str
    precision: str
    kv_cache: str
    versions: dict[str, str]
    date: str

    @property
    def counted(self) -> list[Row]:
        """The rows that `rate` averages: those of the short format, or all if there are none."""
        return _counted(self.rows)

    @property
    def rate(self) -> float:
        """The mean rate of the counted rows; NaN if there are none."""
        return _mean_rate(self.rows)

    def by_category(self) -> dict[str, float]:
        """The mean rate of each category, in the order of the table."""
        names = dict.fromkeys(row.question.category for row in self.rows)
        return {
            name: _mean_rate([row for row in self.rows if row.question.category == name])
            for name in names
        }

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "bundle": self.bundle,
            "precision": self.precision,
            "kv_cache": self.kv_cache,
            "versions": self.versions,
            "date": self.date,
            "complete": self.complete,
            "samples": self.samples,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_new_tokens": self.max_new_tokens,
            "rate": self.rate if self.rows else None,
            "rows": [row.to_dict() for row in self.rows],
        }


class EvaluationStopped(KeyboardInterrupt):
    """Raised on Ctrl-C; `report` has the complete rows."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def evaluate(
    model: Model,
    evaluation: Evaluation,
    *,
    slots: int = MAX_SLOTS,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Ask a model every question as often as `evaluation` says, in each of its formats.

    The i-th answer to every question has the same seed. Only the values of JSON answers are judged.
    Raises ContextError for a question that does not fit into the context, ParameterError for a
    schema that is not supported, and EvaluationStopped on Ctrl-C.
    """
    texts: dict[int, str] = {}

    def add(number: int, completion: Completion) -> None:
        texts[number] = completion.text
        progress(len(texts), evaluation.size)

    report = partial(make_report, evaluation, texts, model.manifest, model.decoder.kv_cache)
    try:
        asker = Asker(model, evaluation)
        for numbers in evaluation.chunks():
            asker.ask(numbers, slots=slots, on_complete=add)
    except KeyboardInterrupt as error:
        raise EvaluationStopped(report()) from error
    return report()


def make_report(
    evaluation: Evaluation, texts: Mapping[int, str], manifest: Manifest, kv_cache: str
) -> Report:
    """Judge answers, which are given by their numbers; questions that lack some are left out."""
    repeats = evaluation.repeats
    rows: list[Row] = []
    for task, (question, kind) in enumerate(evaluation.tasks):
        numbers = range(task * repeats, (task + 1) * repeats)
        if all(number in texts for number in numbers):
            rows.append(_judged(question, kind, [texts[number] for number in numbers]))
    return Report(
        rows=rows,
        complete=len(texts) == evaluation.size,
        samples=repeats,
        temperature=evaluation.temperature,
        seed=evaluation.seed,
        max_new_tokens=evaluation.max_new_tokens,
        bundle=manifest.bundle_id,
        precision=manifest.precision.name,
        kv_cache=kv_cache,
        versions={name: version(name) for name in ("issun", "onnxruntime", "numpy")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _judged(question: Question, kind: Format, texts: Sequence[str]) -> Row:
    judged = map(_values, texts) if kind == "json" else texts
    verdicts = [judge(text, question.right, question.wrong) for text in judged]
    return Row(
        question,
        kind,
        tuple(right for right, _ in verdicts),
        raw=sum(raw for _, raw in verdicts),
        answers=dict(Counter(texts).most_common()),
    )


def _values(text: str) -> str:
    """The values of a JSON answer, one per line; empty if it is truncated."""
    try:
        pending = [json.loads(text)]
    except ValueError:
        return ""
    found: list[str] = []
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value
        else:
            found.append(str(value))
    return "\n".join(found)


def judge(answer: str, right: Sequence[str], wrong: Sequence[str] = ()) -> tuple[bool, bool]:
    """True if the answer is right, and True if it contains a right word, wrong ones ignored."""
    answer = plain(answer)
    raw = any(plain(word) in answer for word in right)
    return raw and not any(plain(word) in answer for word in wrong), raw


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a rate. Source: Wilson (1927)."""
    middle = hits + _Z**2 / 2
    half = _Z * math.sqrt(hits * (total - hits) / total + _Z**2 / 4)
    low = (middle - half) / (total + _Z**2) if hits else 0.0
    high = (middle + half) / (total + _Z**2) if hits < total else 1.0
    return low, high


def paired_interval(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float]:
    """The 95 % interval of the change of the rate from `before` to `after`, for paired answers.

    Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions
    based on paired data" (1998), method 10.
    """
    both, one, other, none = (
        sum(pair == kind for pair in zip(before, after, strict=True))
        for kind in ((True, True), (True, False), (False, True), (False, False))
    )
    total = len(before)
    was, now = (both + one) / total, (both + other) / total
    was_low, was_high = wilson(both + one, total)
    now_low, now_high = wilson(both + other, total)
    spread = math.sqrt((both + one) * (other + none) * (both + other) * (one + none))
    excess = both * none - one * other
    phi = (max(excess - total / 2, 0) if excess > 0 else excess) / spread if spread else 0.0

    def half(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))

    below, above = half(was_high - was, now - now_low), half(was - was_low, now_high - now)
    return now - was - below, now - was + above


def _counted(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.format == "short"] or rows


def _mean_rate(rows: list[Row]) -> float:
    return fmean(row.rate for row in _counted(rows)) if rows else math.nan
