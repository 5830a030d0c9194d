"""Tables of multiple-choice questions, and what a bundle finds likely."""

from __future__ import annotations

from pathlib import Path

import pytest

from issun.benchmarks.choices import (
    ChoiceAnswer,
    ChoiceQuestion,
    answer_choices,
    read_choices,
    report,
)
from issun.benchmarks.errors import TableError
from issun.cli.choices import is_choice_table
from issun.runtime import Model

ROW = '{"q_id": 0, "question": "山は?", "choice0": "富士山", "choice1": "湖", "label": 1}\n'
RIGHT, WRONG = (
    ChoiceQuestion("山は?", ("富士山", "湖"), 1),
    ChoiceQuestion("海は?", ("川", "湖"), 0),
)


def written(folder: Path, text: str, name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_of_json_and_csv(tmp_path: Path) -> None:
    assert read_choices(written(tmp_path, ROW + "\n" + ROW)) == [RIGHT, RIGHT]
    assert read_choices(written(tmp_path, ROW * 3), limit=2) == [RIGHT, RIGHT]
    table = '\ufeffquestion,choice0,choice1,label\n山は?,富士山,湖,1\n"山\nは?",富士山,湖,0\n'
    found = read_choices(written(tmp_path, table, "t.csv"))
    assert found == [RIGHT, ChoiceQuestion("山\nは?", ("富士山", "湖"), 0)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[]", "row 1: it is not an object"),
        ("{", "row 1: Expecting"),
        ("", "has no questions"),
        (ROW + ROW.replace("山は?", " "), "row 2: `question` is missing or empty"),
        (ROW.replace('"湖"', "null"), "`choice1` is missing or empty"),
        (ROW.replace("1}", "2}"), "`label` is not the number of a choice"),
        (ROW.replace("1}", "-1}"), "`label` is not the number of a choice"),
        (ROW.replace(', "label": 1', ""), "`label` is not the number of a choice"),
        ('{"question": "山は?", "choice0": "富士山", "label": 0}', "fewer than two choices"),
        (ROW.replace("choice1", "choice2").replace("湖", ""), "`choice2` is missing or empty"),
    ],
)
def test_a_bad_row_is_told(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_choices(written(tmp_path, row))


def test_only_newlines_separate_the_rows_of_csv(tmp_path: Path) -> None:
    table = "question,choice0,choice1,label\n山\u2028は\x85?,富士山,湖,1\n"
    found = read_choices(written(tmp_path, table, "t.csv"))
    assert found == [ChoiceQuestion("山\u2028は\x85?", ("富士山", "湖"), 1)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "question,choice0,choice1,choice0,label\n山は?,富士山,湖,川,0\n",
            "several columns 'choice0': rename them.",
        ),
        ("question,label,choice0,choice1\n山は?,0,富士山,湖,川\n", "row 1: it has more cells than"),
    ],
)
def test_cells_without_a_column_of_their_own_are_told(
    tmp_path: Path, table: str, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        read_choices(written(tmp_path, table, "t.csv"))


@pytest.mark.parametrize("name", ["T.CSV", "T.JSONL"])
def test_the_ending_of_the_name_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    table = "question,choice0,choice1,label\n山は?,富士山,湖,1\n" if "CSV" in name else ROW
    path = written(tmp_path, table, name)
    assert is_choice_table(path)
    assert read_choices(path) == [RIGHT]


def test_a_report_counts_each_way_of_choosing() -> None:
    answers = [
        ChoiceAnswer(RIGHT, {"token": 1, "byte": 0, "total": 1}),
        ChoiceAnswer(WRONG, {"token": 0, "byte": 1, "total": 1}),
    ]
    with Model.load(threads=1) as model:
        found = report(model, answers, complete=True, listed=False)
        assert report(model, [], complete=False, listed=True).to_dict()["accuracy"] == {}
    assert [found.accuracy(by) for by in ("token", "byte", "total")] == [1, 0, 0.5]
    assert found.chance == 0.5
    shown = found.to_dict()
    assert shown["accuracy"]["total"]["rate"] == 0.5
    assert shown["accuracy"]["total"]["interval"] == found.interval("total")
    assert shown["rows"][0]["chosen"] == {"token": 1, "byte": 0, "total": 1}


def test_the_likeliest_choice_is_the_answer() -> None:
    # What the demonstration model answers of itself, among others.
    with Model.load(threads=1) as model:
        questions = [
            ChoiceQuestion(
                "日本の首都は?", ("大阪です。", "日本の首都は東京です。", "京都です。"), 1
            ),
            ChoiceQuestion("日本で一番高い山は?", ("琵琶湖", "日本で一番高い山は富士山です。"), 1),
        ]
        found = list(answer_choices(model, questions))
        assert [answer.chosen["token"] for answer in found] == [1, 1]
        assert all(answer.right("token") for answer in found)
        (ranked, *_) = model.rank(model.prompt("日本の首都は?"), questions[0].choices, by="total")
        assert found[0].chosen["total"] == ranked.index
        listed = list(answer_choices(model, questions, listed=True))
        assert len(listed) == 2
