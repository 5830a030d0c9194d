"""Evaluates multiple-choice questions: a bundle chooses what it finds the most likely answer.

Tables are those of JCommonsenseQA (JGLUE): `question`, `choice0`, `choice1` and so on, and `label`,
the number of the right choice; one row is a line of JSON or of a CSV file.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from issun.benchmarks.accuracy import wilson
from issun.benchmarks.errors import TableError
from issun.runtime import Model
from issun.runtime.files import check_columns, read_text, user_path
from issun.runtime.scores import BY, By

SUFFIXES = (".jsonl", ".csv")
_CHOICE = re.compile(r"choice(\d+)")
_LISTED = "与えられた選択肢の中から、最適な答えを選んでください。"


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """A question, its choices, and the index of the right one."""

    question: str
    choices: tuple[str, ...]
    label: int


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """The index of the most likely choice by each of `BY`."""

    question: ChoiceQuestion
    chosen: Mapping[By, int]

    def right(self, by: By) -> bool:
        """Whether the choice is right."""
        return self.chosen[by] == self.question.label


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceReport:
    """The answers to a table and the settings; incomplete after Ctrl-C."""

    answers: list[ChoiceAnswer]
    complete: bool
    listed: bool
    bundle: str
    precision: str
    kv_cache: str
    versions: dict[str, str]
    date: str

    def right(self, by: By) -> int:
        """The number of right answers."""
        return sum(answer.right(by) for answer in self.answers)

    def accuracy(self, by: By) -> float:
        """The share of right answers."""
        return self.right(by) / len(self.answers)

    def interval(self, by: By) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy."""
        return wilson(self.right(by), len(self.answers))

    @property
    def chance(self) -> float:
        """The accuracy to expect of a random choice."""
        return sum(1 / len(a.question.choices) for a in self.answers) / len(self.answers)

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "bundle": self.bundle,
            "precision": self.precision,
            "kv_cache": self.kv_cache,
            "versions": self.versions,
            "date": self.date,
            "complete": self.complete,
            "list_choices": self.listed,
            "questions": len(self.answers),
            "accuracy": {
                by: {"rate": self.accuracy(by), "interval": self.interval(by)}
                for by in (BY if self.answers else ())
            },
            "rows": [
                {
                    "question": answer.question.question,
                    "choices": answer.question.choices,
                    "label": answer.question.label,
                    "chosen": dict(answer.chosen),
                }
                for answer in self.answers
            ],
        }


def read_choices(path: Path, limit: int | None = None) -> list[ChoiceQuestion]:
    """Read the first `limit` rows of a table (default: all); raises TableError with the row."""
    path = user_path(path)
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    questions: list[ChoiceQuestion] = []
    for place, row in enumerate(read(path, read_text(path)), start=1):
        if limit is not None and place > limit:
            break
        try:
            questions.append(_question(row))
        except ValueError as error:
            raise TableError(
                "{path}, row {row}: {reason}", path=path, row=place, reason=error
            ) from error
    if not questions:
        raise TableError("{path} has no questions.", path=path)
    return questions


def _json_rows(path: Path, text: str) -> Iterator[Any]:
    for place, line in enumerate(filter(str.strip, text.split("\n")), start=1):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TableError(
                "{path}, row {row}: {reason}", path=path, row=place, reason=error
            ) from error


def _csv_rows(path: Path, text: str) -> Iterator[Any]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        check_columns(path, filter(None, reader.fieldnames or ()), TableError)
        yield from reader
    except csv.Error as error:
        raise TableError(
            "{path} is not a valid table: {reason}", path=path, reason=error
        ) from error


def _question(row: Any) -> ChoiceQuestion:
    """The question of a row; raises ValueError with what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - as of the other faults
    numbered = {int(m[1]): row[name] for name in row if name and (m := _CHOICE.fullmatch(name))}
    if any(row.get(None) or ()):  # where csv puts the cells beyond those of the header
        raise ValueError("it has more cells than the header")
    numbers = sorted(numbered)
    named = ((f"choice{number}", numbered[number]) for number in numbers)
    for name, value in (("question", row.get("question")), *named):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"`{name}` is missing or empty")
    label = str(row.get("label"))
    if not (label.isascii() and label.isdigit() and int(label) in numbered):
        raise ValueError("`label` is not the number of a choice")
    if len(numbers) < 2:
        raise ValueError("there are fewer than two choices")
    choices = tuple(numbered[number] for number in numbers)
    return ChoiceQuestion(row["question"], choices, numbers.index(int(label)))


def answer_choices(
    model: Model, questions: Sequence[ChoiceQuestion], *, listed: bool = False
) -> Iterator[ChoiceAnswer]:
    """Yield the answer to each question: the most likely continuation of the bundle's template.

    The instruction is the question; if `listed`, it asks for one of the choices and lists them, and
    the question is the input.
    """
    for question in questions:
        ranked = model.rank(_prompt(model, question, listed=listed), question.choices)
        chosen: dict[By, int] = {
            by: max(ranked, key=lambda one, by=by: one.score(by)).index  # type: ignore[misc]
            for by in BY
        }
        yield ChoiceAnswer(question, chosen)


def _prompt(model: Model, question: ChoiceQuestion, *, listed: bool) -> list[int]:
    if not listed:
        return model.prompt(question.question)
    lines = [_LISTED, *(f"- {choice}" for choice in question.choices)]
    return model.prompt("\n".join(lines), question.question)


def report(
    model: Model, answers: Sequence[ChoiceAnswer], *, complete: bool, listed: bool
) -> ChoiceReport:
    """Return the report of a run with `model`."""
    return ChoiceReport(
        answers=list(answers),
        complete=complete,
        listed=listed,
        bundle=model.manifest.bundle_id,
        precision=model.manifest.precision.name,
        kv_cache=model.decoder.kv_cache,
        versions={name: version(name) for name in ("issun", "onnxruntime", "numpy")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
