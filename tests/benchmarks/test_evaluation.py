"""Evaluation by several workers: the same answers as one model's, and the same errors."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from issun.benchmarks import evaluation as module
from issun.benchmarks.accuracy import EvaluationStopped, Report, evaluate
from issun.benchmarks.asking import CHUNK, Evaluation
from issun.benchmarks.errors import BenchError
from issun.benchmarks.evaluation import Texts, evaluate_bundle
from issun.benchmarks.questions import Question, Table
from issun.cluster.journal import Answer
from issun.cluster.loading import LoadOptions
from issun.runtime import BundleError, ContextError, Model, ParameterError
from issun.runtime.filling.fill import compile_schema, fill_many
from tests.conftest import Bundles

LEAF = {"type": "object", "properties": {"山": {"type": "string"}}, "required": ["山"]}
TABLE = Table((Question("一番高い山は?", ("山",), schema=LEAF),), role=("User:一寸",))


def evaluation(**options: Any) -> Evaluation:
    defaults = {"table": TABLE, "formats": ("short", "json"), "samples": 70, "max_new_tokens": 6}
    return Evaluation(**{**defaults, **options})


def rows(report: Report) -> list[tuple[Any, ...]]:
    return [(row.format, row.verdicts, list(row.answers.items())) for row in report.rows]


@pytest.fixture(scope="module")
def exact(bundle: Bundles) -> Path:
    """A bundle whose answers do not depend on what is answered beside them."""
    return bundle("head-8", "int8", kv_cache="int8")


@pytest.mark.slow
def test_workers_give_the_answers_of_the_runtime(exact: Path) -> None:
    asked = evaluation()
    assert asked.size > 2 * CHUNK
    progress: list[tuple[int, int]] = []
    report = evaluate_bundle(
        asked, LoadOptions(bundle=exact), workers=2, progress=lambda *done: progress.append(done)
    )
    assert progress[-1] == (140, 140)
    params = [asked.params(sample) for sample in range(70)]
    question = TABLE.questions[0].question
    with Model.load(exact, threads=1) as model:
        short = model.generate_many([model.prompt(question)] * 70, params)
        form = compile_schema(model, LEAF, max_tokens=6)
        assert form is not None

        def make_prompt(line: str) -> list[int]:
            return model.prompt("\n".join(filter(None, (question, line))))

        filled = fill_many(model, form, [(make_prompt, question, one) for one in params])
    for row, answers in zip(report.rows, (short, filled), strict=True):
        assert row.answers == Counter(answer.text for answer in answers)
        assert len(row.answers) > 20


@pytest.mark.slow
def test_the_answers_do_not_depend_on_the_workers_whatever_the_bundle() -> None:
    """With a float32 KV cache an answer is rounded by its chunk, which is always the same."""
    asked = evaluation(samples=100, formats=("short", "chat"), max_new_tokens=20)
    found = evaluate_bundle(asked, LoadOptions(), workers=2, threads=1)
    with Model.load() as model:
        assert rows(evaluate(model, asked)) == rows(found)
    assert len(found.rows[0].answers) > 1


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_are_those_of_the_runtime(exact: Path, tmp_path: Path, workers: int) -> None:
    def fails(error: type[Exception], bundle: Path, **options: Any) -> None:
        with pytest.raises(error):
            evaluate_bundle(evaluation(**options), LoadOptions(bundle=bundle), workers=workers)

    fails(ContextError, exact, table=Table((Question("山は、" * 2000, ("山",)),)))
    fails(BundleError, tmp_path)


@pytest.mark.slow
def test_ctrl_c_keeps_the_questions_that_are_answered(exact: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(EvaluationStopped) as caught:
        evaluate_bundle(
            evaluation(samples=CHUNK, table=Table(TABLE.questions * 2)),
            LoadOptions(bundle=exact),
            workers=2,
            progress=stop,
        )
    report = caught.value.report
    assert not report.complete
    assert 2 <= len(report.rows) < 4


def test_few_answers_start_no_workers(exact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_workers", None)
    assert evaluate_bundle(evaluation(), LoadOptions(bundle=exact)).complete
    few = evaluation(samples=2)
    assert evaluate_bundle(few, LoadOptions(bundle=exact), workers=8).complete


@pytest.mark.parametrize("name", ["workers", "threads", "slots"])
def test_values_below_one(exact: Path, name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name} is 0, it must be a whole number"):
        evaluate_bundle(evaluation(), LoadOptions(bundle=exact), **{name: 0})


def test_an_answer_that_no_worker_survives_ends_the_evaluation() -> None:
    with pytest.raises(BenchError, match=re.escape("answer 4 ended: there may be too little")):
        module._refuse((3, b""))


def test_repeated_answers_count_once() -> None:
    texts = Texts(2)
    texts.add([Answer(1, 200, "山".encode())])
    texts.add([Answer(1, 200, "山".encode())])
    assert (texts.done, texts.complete, 1 in texts, 0 in texts) == (1, False, True, False)
    assert texts.texts == {1: "山"}
