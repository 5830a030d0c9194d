"""Asks the questions of an evaluation.

The answers are numbered: those to the first question in its first format, by sample, then those in
its next format, and so on. They are generated in chunks of fixed numbers, so that an answer is
rounded in the same way whoever generates its chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING

from issun.benchmarks.errors import TableError
from issun.benchmarks.questions import FORMATS, TEXT_FORMATS, Format, Question, Table
from issun.runtime import Completion, Model, SamplingParams
from issun.runtime.decoding.generate import check_prompt
from issun.runtime.errors import check_choice, check_range

if TYPE_CHECKING:
    from issun.runtime.constraint.matching import Constraint
    from issun.runtime.filling.fill import CompiledSchema

OnComplete = Callable[[int, Completion], object]

CHUNK = 64  # answers
_SEED_BITS = 32


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is asked, and how.

    Raises ParameterError for a value out of range, and TableError if no question has one of
    `formats`.
    """

    table: Table
    formats: Sequence[Format] = TEXT_FORMATS
    samples: int = 100  # answers to a question in a format; one is enough at temperature 0
    temperature: float = 0.7
    seed: int = 0
    max_new_tokens: int = 100

    def __post_init__(self) -> None:
        """Check everything that needs no model."""
        check_range("samples", self.samples, Integral, 1, math.inf)
        check_range("seed", self.seed, Integral, 0, (1 << _SEED_BITS) - 1)
        for name in self.formats:
            check_choice("format", name, FORMATS)
        self.params(0)
        if not self.tasks:
            raise TableError(
                "No question of the table has the format {names}.", names=", ".join(self.formats)
            )

    @cached_property
    def tasks(self) -> list[tuple[Question, Format]]:
        """Every question in each of its formats."""
        questions = self.table.questions
        return [(q, f) for q in questions for f in self.formats if f in q.formats]

    @property
    def repeats(self) -> int:
        """How many answers each task gets."""
        return int(self.samples) if self.temperature else 1

    @property
    def size(self) -> int:
        """The number of all answers."""
        return len(self.tasks) * self.repeats

    def params(self, sample: int) -> SamplingParams:
        """The sampling parameters of the answers with the same place in each task."""
        return SamplingParams(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=(int(self.seed) << _SEED_BITS) + sample,  # int: NumPy's numbers overflow
        )

    def chunks(self) -> Iterator[Sequence[int]]:
        """The numbers of the answers that are generated together."""
        for first in range(0, self.size, CHUNK):
            yield range(first, min(first + CHUNK, self.size))


class Asker:
    """Asks a model the questions of an evaluation; everything is prepared at the beginning.

    Raises ContextError for a question that does not fit into the context, and ParameterError for a
    schema that is not supported.
    """

    def __init__(self, model: Model, evaluation: Evaluation) -> None:
        from issun.runtime.filling.fill import compile_schema  # noqa: PLC0415

        self._model, self._evaluation = model, evaluation
        # By index of the task:
        self._forms: dict[int, CompiledSchema] = {}
        self._constraints: dict[int, Constraint] = {}
        self._prompts: dict[int, list[int]] = {}
        most = evaluation.max_new_tokens
        for index, (question, kind) in enumerate(evaluation.tasks):
            schema = question.schema or {}
            if kind == "json" and (form := compile_schema(model, schema, max_tokens=most)):
                self._forms[index] = form
                continue
            self._prompts[index] = _prompt(model, evaluation, question, kind)
            if kind == "json":
                self._constraints[index] = model.constraints.json_schema(schema, max_tokens=most)
        for prompt in self._prompts.values():
            check_prompt(model.decoder, prompt)

    def ask(self, numbers: Sequence[int], *, slots: int, on_complete: OnComplete) -> None:
        """Generate the answers with these numbers; `on_complete` receives each and its number.

        JSON answers are generated value by value if the schema allows. Raises what
        `Model.generate_many` raises.
        """
        texts: list[int] = []
        filled: dict[int, list[int]] = {}
        for number in numbers:
            task = number // self._evaluation.repeats
            (filled.setdefault(task, []) if task in self._forms else texts).append(number)
        self._generate(texts, slots, on_complete)
        for task, chosen in filled.items():
            self._fill(task, chosen, slots, on_complete)

    def _generate(self, numbers: Sequence[int], slots: int, on_complete: OnComplete) -> None:
        prompts, params = [], []
        for number in numbers:
            task, sample = divmod(number, self._evaluation.repeats)
            prompts.append(self._prompts[task])
            constraint = self._constraints.get(task)
            params.append(replace(self._evaluation.params(sample), constraint=constraint))
        self._model.generate_many(
            prompts,
            params,
            slots=slots,
            on_complete=lambda place, completion: on_complete(numbers[place], completion),
        )

    def _fill(self, task: int, numbers: Sequence[int], slots: int, on_complete: OnComplete) -> None:
        from issun.runtime.filling.fill import fill_many  # noqa: PLC0415

        evaluation = self._evaluation
        question, _ = evaluation.tasks[task]

        def make_prompt(line: str) -> list[int]:
            text = "\n".join(filter(None, (question.question, line)))
            return self._model.prompt(text, question.input)

        fill_many(
            self._model,
            self._forms[task],
            [
                (make_prompt, question.question, evaluation.params(number % evaluation.repeats))
                for number in numbers
            ],
            slots=slots,
            on_complete=lambda place, completion: on_complete(numbers[place], completion),
        )


def _prompt(model: Model, evaluation: Evaluation, question: Question, kind: Format) -> list[int]:
    if kind != "chat":
        return model.prompt(question.question, question.input)
    table = evaluation.table
    role = table.role if question.role is None else question.role
    history = table.history if question.history is None else question.history
    most = evaluation.max_new_tokens
    return model.prompts.chat(role, history, question.question, max_new_tokens=most).ids
