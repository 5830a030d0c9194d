"""Replays of answers on invented step times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from issun.benchmarks.drafts import (
    Trace,
    main,
    quoting,
    replay,
    replay_all,
    replay_batches,
    supposed_costs,
    traces,
)
from issun.runtime import Model
from issun.runtime.decoding.drafts import MAX_DRAFT
from issun.runtime.demonstration import EMBEDDED

FLAT = [[1.0] * (MAX_DRAFT + 1)]


def test_without_drafts_there_is_no_cost() -> None:
    assert replay([Trace([1, 2, 3], list(range(10, 30)))], FLAT, 0.04) == 1.0


def test_a_quotation_takes_fewer_steps() -> None:
    prompt = list(range(100))
    answer = list(range(40, 64))
    # Steps: 40; 41 with draft 42, 43; 44 with 45 to 49; 50 with 51 to 61; 62 with 63.
    assert replay([Trace(prompt, answer)], FLAT, 0.04) == pytest.approx(23 / 5)
    dear = [[1.0, *(2.0 for _ in range(MAX_DRAFT))]]
    assert replay([Trace(prompt, answer)], dear, 0.04) == pytest.approx(23 / 9)


def test_a_rejected_draft_costs_its_rows() -> None:
    # After 1 2 the prompt has 3 4, but the answer has 8 9: one draft of two tokens is rejected.
    trace = Trace([1, 2, 3, 4, 7], [1, 2, 8, 9])
    assert replay([trace], [[1.0, 1.1, 1.2]], 0.04) == pytest.approx(3 / 3.2)


def test_predictions_of_earlier_answers_are_drafted() -> None:
    answer = list(range(40, 60))
    first = Trace([1, 2], answer, answer)
    second = Trace([9, 1, 2], answer, answer)
    alone, again = (gain for _, gain in replay_all([first, second], FLAT, 0.04))
    assert alone == 1.0
    # Drafts 41, 42; 44 to 46; 48 to 52; 54 to the end.
    assert again == pytest.approx(19 / 4)


def test_two_answers_share_the_rows_of_a_step() -> None:
    long, short = (Trace(list(range(100)), list(range(40, end))) for end in (64, 50))
    costs = [[1.0, *(1.5 for _ in range(MAX_DRAFT))], [2.0, *(3.0 for _ in range(MAX_DRAFT))]]
    # Both: 40; 41 with 42; 43 with 44 to 46; 47 with 48 to 53. The long one: 54 to its end.
    assert replay([long, short], costs, 0.04) == pytest.approx((9 * 2 + 14) / (2 + 3 * 3 + 1.5))
    gains = [gain for _, gain in replay_batches([long, long] * 2, 2, costs, 0.04)]
    assert gains == [replay([long, long], costs, 0.04)] * 2


def test_supposed_costs_count_rows() -> None:
    assert supposed_costs(0.25, 1)[:3] == [1, 1.25, 1.5]
    assert supposed_costs(0.25, 2)[:3] == [1.25, 1.75, 2.25]


def test_distinct_and_quoted_shares() -> None:
    trace = Trace([1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 9, 9, 9])
    assert trace.quoted == 0.5
    assert trace.distinct == 1.0
    assert Trace([], [7] * 8).distinct == 0.2


def test_records_that_quote() -> None:
    text = "吾輩は猫である。名前はまだ無い。どこで生れたか見当がつかぬ。"
    picked, replaced = quoting([text, "短い。"])
    assert picked["output"] == "名前はまだ無い。"
    assert replaced["instruction"] == "次の文章の「名前」を「何か」に直してください。"
    assert replaced["output"] == "吾輩は猫である。何かはまだ無い。どこで生れたか見当がつかぬ。"
    assert picked["input"] == replaced["input"] == text


def test_answers_that_do_not_fit_are_left_out() -> None:
    model = Model.load()
    fitting = {"instruction": "山は?", "output": "日本で一番高い山は富士山です。" * 3}
    records = [fitting, {**fitting, "output": "はい"}, {**fitting, "output": "山" * 999}]
    trace, short = traces(model, records)
    assert not list(replay_all([short], FLAT, 0.04))
    assert trace.prompt == model.prompt("山は?")
    assert model.tokenizer.decode(trace.answer[:-1]) == fitting["output"]
    assert trace.answer[-1] == model.manifest.tokens.eos


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e-320", "1.5", "much"])
def test_a_row_costs_a_share_of_a_step(
    value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["drafts", str(EMBEDDED), f"--row-cost={value}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "argument --row-cost: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--together", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "1025", "1.5", "many"])
def test_counts_are_at_least_one(
    option: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["drafts", str(EMBEDDED), f"{option}={value}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"argument {option}: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, text = tmp_path / "records.jsonl", tmp_path / "text.txt"
    other = "今日は天気がよいので、公園まで歩いて行きましょう。"
    lines = [{"instruction": "何をする?", "output": o} for o in (other, "はいはい" * 20)]
    records.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    text.write_text(
        "朝早く起きて庭の花に水をやった。昼には友人と町の図書館で本を読んだ。"
        "夕方になって雨が降り始めたので、二人とも傘をさして帰った。\n",
        encoding="utf-8",
    )
    options = ["--records", str(records), "--text", str(text)]
    monkeypatch.setattr("sys.argv", ["drafts", str(EMBEDDED), *options])
    assert main() == 0
    steps, row, *lines = capsys.readouterr().out.splitlines()
    assert steps.startswith("step time by number of tokens: 1: ")
    assert row.startswith("one more row counts as 0.")
    assert [line.split(" times")[0].split()[:4] for line in lines] == [
        ["records,", "quoting", "answers", "none"],
        ["records,", "other", "answers", "1:"],
        ["records,", "left", "out", "as"],
        ["chat,", "quoting", "answers", "none"],
        ["chat,", "other", "answers", "none"],
        ["chat,", "left", "out", "as"],
        ["text,", "quoting", "answers", "2:"],
        ["text,", "other", "answers", "none"],
        ["text,", "left", "out", "as"],
    ]
    assert [line.split()[-1] for line in lines[2::3]] == ["1", "40", "0"]
