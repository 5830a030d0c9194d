"""`issun score` and multiple-choice questions in `issun evaluate`: output and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from issun.runtime import Model
from tests.cli.conftest import issun

TEXT = "日本で一番高い山は富士山です。"
ROW = {
    "question": "日本の首都は?",
    "choice0": "日本の首都は東京です。",
    "choice1": "大阪",
    "label": 0,
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps(ROW, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_text_as_text_and_as_json(text: Path) -> None:
    result = issun("score", "--text", text, "--tokens")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    with Model.load() as model:
        score = model.score_text(TEXT)
    assert len(lines) == len(score.ids) + 4
    assert lines[0].split() == ["-", str(score.ids[0]), "'日本'"]
    assert lines[1].split()[0] == f"{score.logprobs[0]:.4f}"
    assert lines[-4:] == [
        f"scored tokens   {len(score.logprobs)}",
        f"perplexity      {score.perplexity:.4f} ± {score.error:.4f}",
        f"nats per token  {-score.mean:.5f}",
        f"bits per byte   {score.bits_per_byte:.5f}",
    ]
    found = json.loads(issun("score", "--text", text, "--tokens", "--json").out)
    assert found["perplexity"] == pytest.approx(score.perplexity)
    assert found["tokens"][0] == {"id": score.ids[0], "text": "日本", "logprob": None}
    assert "tokens" not in json.loads(issun("score", "--text", text, "--json").out)


@pytest.mark.slow
def test_continuations(tmp_path: Path) -> None:
    texts = ["富士山です。", "琵琶湖です。"]
    options = [word for text in texts for word in ("--continuation", text)]
    result = issun("score", "--instruction", "一番高い山は?", *options)
    assert (result.code, result.err) == (0, "")
    with Model.load() as model:
        ranked = model.rank(model.prompt("一番高い山は?"), texts)
    header, *rows = result.out.splitlines()
    assert header == "per token  per byte      total  tokens  continuation"
    assert [row.split()[-1] for row in rows] == [one.text for one in ranked]
    assert rows[0].split()[0] == f"{ranked[0].per_token:.4f}"
    file = tmp_path / "rows.jsonl"
    row = {"prompt": "一番高い山は", "continuations": texts}
    file.write_text(f"{json.dumps(row)}\n\n{json.dumps(row)}\n", encoding="utf-8")
    shown = issun("score", "--rank", file, "--by", "total")
    assert shown.out.splitlines()[0] == "一番高い山は"
    assert shown.out.count(header) == 2
    lines = issun("score", "--rank", file, "--json").out.splitlines()
    assert [{one["index"] for one in json.loads(line)} for line in lines] == [{0, 1}] * 2


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give one of --text FILE, --rank FILE"),
        (["--text", "a", "--rank", "b"], "Give one of --text FILE, --rank FILE"),
        (["--text", "a", "--prompt", "b"], "Give one of --text FILE, --rank FILE"),
        (["--text", "a", "--by", "byte"], "--by cannot be combined with --text."),
        (["--prompt", "a", "--continuation", "b", "--window", "5"], "--window cannot be combined"),
        (["--prompt", "a"], "There are no continuations to rank."),
        (["--continuation", "a"], "Give either a prompt or an instruction."),
        (
            ["--prompt", "a", "--instruction", "b", "--continuation", "c"],
            "Give either a prompt or an instruction.",
        ),
        (["--prompt", "a", "--continuation", "b", "--by", "x"], "by is 'x', it must be one of"),
        (["--text", "none.txt"], "none.txt"),
        (["--rank", "none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str) -> None:
    result = issun("score", *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_a_bad_row_to_rank_is_told(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for row, reason in (
        ('{"continuations": ["a"]}', "Give either a prompt or an instruction."),
        ('{"prompt": "a"}', "Object missing required field `continuations`"),
        ("{", "Input data was truncated"),
        ('{"prompt": "a", "input": "b", "continuations": ["c"]}', "An input needs an instruction."),
    ):
        file.write_text("\n" + row, encoding="utf-8")
        assert issun("score", "--rank", file).err == f"error: {file}, line 2: {reason}\n"
    file.write_text("\n", encoding="utf-8")
    empty = issun("score", "--rank", file)
    assert (empty.code, empty.err) == (2, "error: There are no continuations to rank.\n")


@pytest.mark.slow
def test_choices_are_evaluated(table: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = issun("evaluate", "--table", table, "--json", report)
    assert (result.code, result.err) == (0, "")
    with Model.load() as model:
        texts = [str(ROW["choice0"]), str(ROW["choice1"])]
        right = {
            by: model.rank(model.prompt(str(ROW["question"])), texts, by=by)[0].index == 0  # type: ignore[arg-type]
            for by in ("total", "token", "byte")
        }
    header, *rows, chance = result.out.splitlines()
    assert header == "right   interval (95 %)  right answers"
    assert [row.split()[0] for row in rows] == ["100.0%" if r else "0.0%" for r in right.values()]
    assert chance == "a random choice: 50.0%"
    assert json.loads(report.read_text(encoding="utf-8"))["questions"] == 1
    assert json.loads(issun("evaluate", "--table", table, "--json", "-").out)["complete"] is True


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "100"], "--samples is not for multiple-choice questions."),
        (["--format", "all"], "--format is not for multiple-choice questions."),
        (["--limit", "0"], "limit is 0, it must be a whole number of at least 1."),
    ],
)
def test_options_of_the_other_kind_of_table(table: Path, options: list[str], message: str) -> None:
    assert issun("evaluate", "--table", table, *options).err == f"error: {message}\n"


def test_a_limit_needs_choices() -> None:
    for option in (["--limit", "3"], ["--list-choices"]):
        result = issun("evaluate", *option)
        assert result.code == 2
        assert f"{option[0]} is for multiple-choice questions" in result.err
