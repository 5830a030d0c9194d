"""Judging answers, intervals, tables, and a whole evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from issun.benchmarks.accuracy import (
    EvaluationStopped,
    Report,
    Row,
    judge,
    paired_interval,
    wilson,
)
from issun.benchmarks.accuracy import evaluate as ask
from issun.benchmarks.asking import Evaluation
from issun.benchmarks.errors import TableError
from issun.benchmarks.questions import Question, Table, read_table
from issun.runtime import (
    ContextError,
    Conversation,
    IssunError,
    Model,
    ParameterError,
    SamplingParams,
    Turn,
)

LAKE = Question("日本で一番広い湖は?", ("琵琶湖", "びわ湖"), ("霞ヶ浦", "サロマ湖"))


def evaluate(model: Model, table: Table, **options: Any) -> Report:
    asking = {name: options.pop(name) for name in ("slots", "progress") if name in options}
    return ask(model, Evaluation(table=table, **options), **asking)


@pytest.fixture(scope="module")
def model(bundle: Callable[..., Path]) -> Model:
    return Model.load(bundle("head-20-width-100"), threads=1)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        path = tmp_path / "table.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


# --- judging ---


@pytest.mark.parametrize(
    ("answer", "right", "raw"),
    [
        ("琵琶湖です。", True, True),
        ("日本で一番広い湖はびわ湖なのだ!", True, True),
        ("琵琶湖と霞ヶ浦です。", False, True),
        ("サロマ湖です。", False, False),
        ("琵琶", False, False),
        ("", False, False),
    ],
)
def test_a_right_answer_has_a_right_word_and_no_wrong_one(
    answer: str, right: bool, raw: bool
) -> None:
    assert judge(answer, LAKE.right, LAKE.wrong) == (right, raw)


def test_words_are_compared_in_nfkc() -> None:
    assert judge("ｴﾍﾞﾚｽﾄです", ("エベレスト",)) == (True, True)
    assert judge("エベレスト、次はＫ２", ("エベレスト",), ("K2",)) == (False, True)
    assert judge("エベレスト", ("ｴﾍﾞﾚｽﾄ",), ("Ｋ２",)) == (True, True)


# --- the interval ---


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # By hand: middle (hits + z²/2) / (n + z²), z = 1.96.
        (0, 100, 0.0, 0.0370),
        (50, 100, 0.4038, 0.5962),
        (83, 100, 0.7445, 0.8911),
        (100, 100, 0.9630, 1.0),
        (8, 10, 0.4902, 0.9433),
        (0, 1, 0.0, 0.7935),
    ],
)
def test_wilson(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_contains_its_rate(counts: tuple[int, int]) -> None:
    hits, total = counts
    low, high = wilson(hits, total)
    assert 0 <= low <= hits / total <= high <= 1
    assert wilson(total - hits, total) == pytest.approx((1 - high, 1 - low))


# --- tables ---


def test_the_packaged_table() -> None:
    table = read_table()
    assert [q.question for q in table.questions] == ["日本で一番広い湖は?", "世界で一番高い山は?"]
    lake, mountain = table.questions
    assert judge("琵琶湖なのだ!", lake.right, lake.wrong) == (True, True)
    assert judge("富士山なのだ!", mountain.right, mountain.wrong) == (False, False)
    answer = "エベレスト(チョモランマ)です。"
    assert judge(answer, mountain.right, mountain.wrong) == (True, True)
    assert judge("エベレスト、またはK2", mountain.right, mountain.wrong) == (False, True)
    assert table.role[0].startswith("User:あなたは「ずんだもん」")
    assert table.history == (Turn("こんにちは!", "ボクは何でも答えられるAIなのだ!"),)
    assert all(q.formats == ("short", "chat", "json") for q in table.questions)
    assert [list((q.schema or {})["properties"]) for q in table.questions] == [["湖"], ["山"]]


def test_all_fields_of_a_table(write: Callable[[str], Path]) -> None:
    table = read_table(
        write("""
        role = ["User:一寸"]
        history = [["こんにちは!", "はい"]]
        [[questions]]
        question = "湖は?"
        right = "琵琶湖"
        [[questions]]
        question = "要約して"
        right = ["山", "川"]
        wrong = "海"
        input = "山と川"
        category = "要約"
        [[questions]]
        question = "君は誰?"
        right = "一寸"
        role = ["User:君は一寸"]
        history = []
        """)
    )
    lake, summary, who = table.questions
    assert lake == Question("湖は?", ("琵琶湖",))
    assert summary == Question("要約して", ("山", "川"), ("海",), "山と川", category="要約")
    assert summary.formats == ("short",)
    assert who == Question("君は誰?", ("一寸",), role=("User:君は一寸",), history=())
    assert who.formats == ("chat",)
    assert (table.role, table.history) == (("User:一寸",), (Turn("こんにちは!", "はい"),))


ROW = '[[questions]]\nquestion = "湖は?"\nright = "琵琶湖"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a valid table: Object missing required field `questions`"),
        ("questions = []", "has no questions."),
        ("[[questions", "is not a valid table: Expected ']]'"),
        ("answers = 1\n" + ROW, "Object contains unknown field `answers`"),
        (ROW + "[[questions]]\nquestion = 'a'", "row 2: Object missing required field `right`"),
        (ROW + "answer = 'a'", "row 1: Object contains unknown field `answer`"),
        (ROW + "wrong = [1]", "row 1: Expected `str`, got `int` - at `$.wrong[0]`"),
        (
            ROW + "history = [['a']]",
            "row 1: Expected `array` of length 2, got 1 - at `$.history[0]",
        ),
        (ROW.replace("湖は?", " "), "row 1: `question` is empty."),
        (ROW.replace('"琵琶湖"', "[]"), "row 1: `right` is empty."),
        (ROW.replace('"琵琶湖"', '["琵琶湖", ""]'), "row 1: `right` has an empty word."),
        (ROW + "wrong = [' ']", "row 1: `wrong` has an empty word."),
        (ROW + "input = 'a'\nrole = ['b']", "row 1: `input` is for the short format"),
        (
            ROW + "leaf = 'a'\nrole = ['b']",
            "row 1: `leaf` and `schema` cannot be combined with `role`",
        ),
        (ROW + "leaf = 'a'\n[questions.schema]\ntype = 'string'", "row 1: give either `leaf`"),
        (
            ROW + ROW + "wrong = '琵琶'",
            "row 2: the wrong word '琵琶' is part of the right word '琵琶湖'",
        ),
        (ROW.replace("琵琶湖", "K2") + "wrong = 'Ｋ２'", "row 1: the wrong word 'Ｋ２' is part"),
    ],
)
def test_table_errors_name_row_and_field(
    write: Callable[[str], Path], text: str, message: str
) -> None:
    path = write(text)
    with pytest.raises(TableError) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_an_unreadable_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read: No such file or directory"):
        read_table(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(TableError, match="is not a valid table: 'utf-8'"):
        read_table(tmp_path / "bytes.toml")


# --- evaluations ---


TABLE = Table(
    (
        LAKE,
        Question("要約して", ("山",), input="山と川", category="要約"),
        Question("君は誰?", ("一寸",), role=("User:君は一寸",)),
    ),
    role=("User:ずんだもん",),
    history=(Turn("こんにちは!", "はい"),),
)


def counts(report: Report) -> list[Any]:
    return [(row.question.question, row.format, row.answers) for row in report.rows]


def test_prompts_seeds_and_order(model: Model) -> None:
    report = evaluate(model, TABLE, samples=3, seed=7, max_new_tokens=8, slots=2)
    asked = [(row.question.question, row.format) for row in report.rows]
    assert asked == [
        ("日本で一番広い湖は?", "short"),
        ("日本で一番広い湖は?", "chat"),
        ("要約して", "short"),
        ("君は誰?", "chat"),
    ]
    params = [
        SamplingParams(temperature=0.7, max_new_tokens=8, seed=(7 << 32) + i) for i in range(3)
    ]
    zundamon = Conversation(model, TABLE.role)
    zundamon.turns = list(TABLE.history)
    issun = Conversation(model, ["User:君は一寸"])
    issun.turns = list(TABLE.history)
    texts = [
        [model.generate(model.prompt(LAKE.question), p).text for p in params],
        [zundamon.reply(LAKE.question, p).text for p in params if not _forget(zundamon)],
        [model.generate(model.prompt("要約して", "山と川"), p).text for p in params],
        [issun.reply("君は誰?", p).text for p in params if not _forget(issun)],
    ]
    assert [set(row.answers) for row in report.rows] == [set(t) for t in texts]
    assert all(row.asked == sum(row.answers.values()) == 3 for row in report.rows)


def _forget(chat: Conversation) -> None:
    chat.turns = list(TABLE.history)


def test_results_depend_on_the_seed(model: Model) -> None:
    first, again, other = (
        evaluate(model, TABLE, samples=4, seed=seed, max_new_tokens=6, slots=slots)
        for seed, slots in ((1, 16), (1, 3), (2, 16))
    )
    assert counts(first) == counts(again)
    assert counts(first) != counts(other)


def test_fewer_samples_are_the_first_of_more(model: Model) -> None:
    table = Table((LAKE,))
    few = evaluate(model, table, samples=2, max_new_tokens=6).rows[0].answers
    more = evaluate(model, table, samples=5, max_new_tokens=6).rows[0].answers
    assert all(more[answer] >= count for answer, count in few.items())


@pytest.mark.slow
def test_a_trained_answer_is_counted(ja_small: Callable[..., Path]) -> None:
    with Model.load(ja_small("int8"), threads=1) as trained:
        reported = trained.generate(
            trained.prompt("こんにちは!"), SamplingParams(temperature=0)
        ).text
        table = Table(
            (Question("こんにちは!", (reported[:2],)), Question("こんにちは!", ("ない語",)))
        )
        report = evaluate(trained, table, temperature=0, formats=("short",))
    assert [row.rate for row in report.rows] == [1, 0]
    assert [row.asked for row in report.rows] == [1, 1]
    assert report.samples == 1
    assert report.rate == 0.5


def test_progress(model: Model) -> None:
    reported: list[tuple[int, int]] = []
    evaluate(
        model,
        TABLE,
        samples=2,
        max_new_tokens=2,
        formats=("chat",),
        progress=lambda *done: reported.append(done),
    )
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"samples": 0}, ParameterError, "samples is 0, it must be a whole number of at least 1."),
        ({"seed": -1}, ParameterError, "seed is -1, it must be a whole number from 0 to"),
        ({"seed": 1 << 32}, ParameterError, "seed is 4294967296"),
        ({"temperature": -1}, ParameterError, "temperature is -1"),
        ({"max_new_tokens": 0}, ParameterError, "max_new_tokens is 0"),
        ({"slots": 0}, ParameterError, "slots is 0"),
        ({"formats": ("long",)}, ParameterError, "format is 'long'"),
        ({"formats": ()}, TableError, "No question of the table has the format"),
        ({"table": Table((TABLE.questions[1],)), "formats": ("chat",)}, TableError, "format chat."),
        ({"table": Table((replace(LAKE, question="山は、" * 2000),))}, ContextError, "tokens"),
    ],
)
def test_invalid_options(
    model: Model, options: dict[str, Any], error: type[IssunError], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(model, **{"table": TABLE, **options})


def test_ctrl_c_keeps_finished_rows(model: Model) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(EvaluationStopped) as caught:
        evaluate(model, TABLE, samples=2, max_new_tokens=2, slots=1, progress=stop)
    report = caught.value.report
    assert not report.complete
    assert [row.format for row in report.rows] == ["short", "chat"]
    whole = evaluate(model, TABLE, samples=2, max_new_tokens=2, slots=1)
    assert whole.complete
    assert counts(whole)[:2] == counts(report)
    model.check_free()


# --- reports ---


def verdicts(right: int, asked: int = 10) -> tuple[bool, ...]:
    return (True,) * right + (False,) * (asked - right)


def report_of(*rows: tuple[str, str, int]) -> Report:
    """A report with rows of (category, format, right answers of 10)."""
    return Report(
        rows=[
            Row(
                Question("湖は?", ("琵琶湖",), category=name),
                kind,
                verdicts(right),
                10,
                {"琵琶湖": 10},
            )  # type: ignore[arg-type]
            for name, kind, right in rows
        ],
        complete=True,
        samples=10,
        temperature=0.7,
        seed=0,
        max_new_tokens=100,
        bundle="id",
        precision="int8",
        kv_cache="float32",
        versions={},
        date="2026-01-01T00:00:00+00:00",
    )


def test_the_rate_is_that_of_the_short_format_if_there_is_one() -> None:
    report = report_of(("山", "short", 8), ("山", "chat", 2), ("湖", "short", 6), ("湖", "chat", 0))
    assert report.rate == pytest.approx(0.7)
    assert report.by_category() == {"山": 0.8, "湖": 0.6}
    report = report_of(("山", "chat", 8), ("湖", "chat", 6))
    assert report.rate == pytest.approx(0.7)
    mixed = report_of(("山", "short", 8), ("役", "chat", 6))
    assert (mixed.rate, mixed.by_category()) == (0.8, {"山": 0.8, "役": 0.6})
    assert math.isnan(report_of().rate)


def test_a_report_as_json(model: Model) -> None:
    report = evaluate(model, TABLE, samples=2, max_new_tokens=4)
    read = json.loads(json.dumps(report.to_dict()))
    assert read["bundle"] == model.manifest.bundle_id
    assert (read["precision"], read["kv_cache"]) == ("int8", "float32")
    assert set(read["versions"]) == {"issun", "onnxruntime", "numpy"}
    assert (read["samples"], read["temperature"], read["seed"]) == (2, 0.7, 0)
    row = read["rows"][0]
    assert row["question"] == LAKE.question
    assert (row["right"], row["wrong"]) == (list(LAKE.right), list(LAKE.wrong))
    assert (row["format"], row["asked"]) == ("short", 2)
    assert row["rate"] == row["right_answers"] / 2
    assert row["interval"] == list(wilson(row["right_answers"], 2))
    assert sum(row["answers"].values()) == 2
    assert report_of().to_dict()["rate"] is None


def pairs(both: int, first: int, second: int, none: int) -> tuple[list[bool], list[bool]]:
    """Verdicts of two runs: so many questions are right in both, only in one, or in neither."""
    kinds = [(True, True)] * both + [(True, False)] * first
    kinds += [(False, True)] * second + [(False, False)] * none
    return [a for a, _ in kinds], [b for _, b in kinds]


def test_the_paired_interval_equals_the_published_one() -> None:
    """Newcombe 1998, table II: 36, 12, 2, 0 of 50 pairs, method 10."""
    low, high = paired_interval(*pairs(36, 12, 2, 0))
    assert (-high, -low) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_paired_intervals_of_equal_answers_are_narrow() -> None:
    low, high = paired_interval(*pairs(1000, 0, 0, 0))
    assert low == pytest.approx(-wilson(0, 1000)[1])
    assert high == pytest.approx(wilson(0, 1000)[1])
    low, high = paired_interval(*pairs(500, 0, 0, 500))
    assert -0.004 < low < 0 < high < 0.004  # almost all pairs agree, so there is little variance


SUM = {"type": "object", "properties": {"和": {"type": "integer"}}, "required": ["和"]}
EITHER = {"anyOf": [SUM, {"type": "integer", "minimum": 0, "maximum": 9}]}


def test_json_answers_are_judged_by_their_values() -> None:
    questions = (
        Question(
            "日本で一番広い湖は?",
            ("琵琶湖",),
            schema=SUM | {"properties": {"和": {"type": "string"}}},
        ),
        Question("5足す7は?", ("12",), ("5+7", "和"), schema=SUM),
        Question("5足す7は?", ("和", "12"), schema=EITHER),
    )
    with Model.load(threads=1) as model:
        report = evaluate(model, Table(questions), temperature=0, formats=("json",))
    assert [row.format for row in report.rows] == ["json"] * 3
    assert [list(row.answers) for row in report.rows[:2]] == [['{"和":"琵琶湖"}'], ['{"和":12}']]
    assert [row.right for row in report.rows[:2]] == [1, 1]
    (grammar,) = report.rows[2].answers  # cannot be generated value by value
    assert isinstance(json.loads(grammar), dict | int)
    assert report.rate == pytest.approx((2 + report.rows[2].right) / 3)
