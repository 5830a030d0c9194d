"""The everyday questions: how answers are judged, and that training never shows a question."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from issun.runtime import Model
from issun.training.embedded.corpus import corpus
from issun.training.embedded.everyday import (
    Answer,
    Everyday,
    ask_all,
    everyday_questions,
    normalized,
    outside_questions,
    parse,
    print_verdicts,
)
from issun.training.embedded.questions import QAPair


def test_a_line_has_messages_and_what_makes_the_answer_right() -> None:
    (asked,) = parse("sums", "1+2は? / じゃあ2+2は? → 4|四 !5\n")
    assert asked == Everyday("sums", ("1+2は?", "じゃあ2+2は?"), ("4", "四"), ("5",))
    assert [q.right for q in parse("outside", "今何時? → decline\n寒い?")] == [(), ()]


@pytest.mark.parametrize(
    ("right", "answer", "verdict"),
    [
        (("ロンドン",), "イギリスの首都はロンドンです。", "right"),
        (("ロンドン",), "英キスタンの首都はタシケントです。", "wrong"),
        (("ロンドン",), "それは分かりません。", "declined"),
        (("ロンドン",), "それはわからないのだ!", "declined"),
        (("ロンドン",), "ロンドンはパリの首都です。", "wrong"),
        (("5",), "0+5は5です。", "right"),
        (("5",), "0+5は15です。", "wrong"),
        (("5",), "0+5は0です。", "wrong"),
        (("は3問目",), "今は3問目です。", "right"),
        (("は3問目",), "今は13問目です。", "wrong"),
        ((), "それは分かりません。", "right"),
        ((), "2026年です。", "wrong"),
    ],
)
def test_judging(right: tuple[str, ...], answer: str, verdict: str) -> None:
    assert Everyday("", ("?",), right, ("パリ",)).judge(answer) == verdict


def test_there_are_250_different_questions() -> None:
    questions = everyday_questions()
    assert len({tuple(map(normalized, q.messages)) for q in questions}) == len(questions) == 250
    kinds = Counter(question.kind for question in questions)
    assert len(kinds) == 9
    assert min(kinds.values()) >= 14


def test_there_are_300_outside_questions() -> None:
    questions = outside_questions()
    assert len({normalized(*question.messages) for question in questions}) == 300
    assert not any(question.right for question in questions)


def test_repeating_the_question_is_no_right_answer() -> None:
    """Texts and some sums contain their answers, and greetings are returned."""
    for question in everyday_questions():
        if question.kind not in ("reading", "small talk", "arithmetic"):
            assert question.judge(question.messages[-1]) != "right", question


def test_training_never_shows_one() -> None:
    """Neither a single question nor, from the beginning, a conversation."""
    questions = (*everyday_questions(), *outside_questions())
    asked = {tuple(map(normalized, question.messages)) for question in questions}
    shown: set[tuple[str, ...]] = set()
    for item in islice(corpus(11), 3000):
        messages = (
            [item.message]
            if isinstance(item, QAPair)
            else [*(turn.message for turn in item.turns), item.ask.message]
        )
        known = tuple(map(normalized, messages))
        shown |= {known[:end] for end in range(1, len(known) + 1)} | {(m,) for m in known}
    assert not asked & shown


def test_the_table_and_its_rates(capsys: pytest.CaptureFixture[str]) -> None:
    sums = Everyday("sums", ("1+1は?",), ("2",))
    outside = Everyday("outside", ("今何時?",), ())
    answers = [Answer(sums, "1+1は2です。"), Answer(sums, "分かりません。"), Answer(outside, "2時")]
    print_verdicts({"greedy": answers})
    assert capsys.readouterr().out.splitlines() == [
        "| kind | greedy: right, declined, wrong |",
        "|---|---|",
        "| sums | 1, 1, 0 |",
        "| outside | 0, 0, 1 |",
        "| all | 1, 1, 1 |",
        "",
        "right or declined: 66.7% of 3 answers",
        "declined within its abilities: 50.0% of 2 answers",
    ]


def test_messages_are_sent_one_after_the_other() -> None:
    asked = Everyday("conversation", ("フランスの首都は?", "最初の質問は何ですか?"), ("首都は",))
    with Model.load() as model:
        answers = ask_all(model, [asked], seeds=(1,))
    assert list(answers) == ["greedy", "seed 1"]
    assert answers["greedy"][0].text == "最初の質問は「フランスの首都は?」です。"
