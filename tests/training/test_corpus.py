"""The corpus of the embedded model: correct, reproducible, and disjoint from held-out data."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from issun.runtime import Turn
from issun.runtime.model import EMBEDDED
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.training.embedded import questions
from issun.training.embedded.corpus import Dialogue, about_conversation, corpus, dialogue
from issun.training.embedded.facts import COUNTRIES, PREFECTURES, SUPERLATIVES
from issun.training.embedded.held_out import chat_table, short_table
from issun.training.embedded.pretrain import Encoder, PretrainOptions, rate_share, record
from issun.training.embedded.questions import QAPair
from issun.training.embedded.reading import arithmetic, reading
from issun.training.embedded.styles import FRIEND, KANSAI, NANODA, POLITE, SAMURAI, draw_role
from issun.training.embedded.vocabulary import SPECIAL
from issun.training.records import chat_record

MANY = 6000


@pytest.fixture(scope="module")
def trained() -> list[QAPair | Dialogue]:
    return list(islice(corpus(3), MANY))


@pytest.fixture(scope="module")
def messages(trained: list[QAPair | Dialogue]) -> set[str]:
    """All user messages in a part of the corpus."""
    said = set()
    for item in trained:
        if isinstance(item, QAPair):
            said.add(item.message)
        else:
            said |= {item.ask.message, *(turn.message for turn in item.turns)}
    return said


def test_records_depend_only_on_the_seed() -> None:
    first, again, other = (
        [record(item) for item in islice(corpus(seed), 200)] for seed in (5, 5, 6)
    )
    assert first == again != other


def test_numbers_of_facts() -> None:
    assert len({p.name for p in PREFECTURES}) == 47
    assert len({p.region for p in PREFECTURES}) == 8
    assert len({c.name for c in COUNTRIES}) >= 60
    assert len({c.continent for c in COUNTRIES}) == 6
    known = {s.canonical: s.answers[0] for s in SUPERLATIVES}
    assert len(known) == len(SUPERLATIVES)
    assert known["日本で一番広い湖"] == "琵琶湖"
    assert known["世界で一番高い山"] == "エベレスト"


@pytest.mark.parametrize(
    ("style", "said"),
    [
        (POLITE, "私はモデルです。それは分かりません。いい夜ですね。"),
        (NANODA, "ボクはモデルなのだ!それは分からないのだ!いい夜なのだ!"),
        (KANSAI, "うちはモデルやで。それは分からないで。いい夜やなあ。"),
        (FRIEND, "ぼくはモデルだよ。それは分からないよ。いい夜だね。"),
        (SAMURAI, "拙者はモデルでござる。それは分からないでござる。いい夜でござるな。"),
    ],
)
def test_speaking_styles(style: object, said: str) -> None:
    marked = "{私}はモデル{です}それは{分かりません|分からない}いい夜{ね}"
    assert style.render(marked) == said  # type: ignore[attr-defined]


def test_no_placeholder_is_left_in_a_record(trained: list[QAPair | Dialogue]) -> None:
    for item in trained:
        text = record(item)
        assert not re.search(r"[{}|]", text), text
        assert text.startswith("<s>")
        assert text.endswith(r"\n</s>")
        assert "\n" not in text


def test_held_out_wordings_never_occur_in_training(messages: set[str]) -> None:
    held = {w for w in questions.TAILS_HELD_OUT + questions.WHERE_HELD_OUT if len(w) > 4}
    assert not [m for m in messages for tail in held if m.endswith(tail)]
    openings = questions.OPENINGS_HELD_OUT
    assert not [m for m in messages if m.startswith(openings)]
    assert not {m for m in messages if "経営学" in m or "ブロックチェーン" in m}


def test_held_out_combinations_never_occur_in_training(messages: set[str]) -> None:
    kept = [
        f"{c.name}の首都{tail}"
        for c in COUNTRIES
        for tail in questions.TAILS + questions.WHERE
        if questions.is_held_out(tail, c.name)
    ]
    assert len(kept) > 500
    assert messages.isdisjoint(opening + text for opening in questions.OPENINGS for text in kept)


def test_most_held_out_questions_are_new(messages: set[str]) -> None:
    """Except for greetings and products, of which there are few."""
    rows = [
        row for row in short_table(1).questions if row.category not in ("smalltalk", "arithmetic")
    ]
    seen = [row.question for row in rows if row.question in messages and row.input is None]
    assert len(seen) < len(rows) / 50


def test_sums_are_right_and_held_out_sums_never_occur_in_training() -> None:
    pairs: dict[str, set[str]] = {}
    for split in ("train", "held_out"):
        rng = Random(1)
        for _ in range(2000):
            ask = arithmetic(rng, split)  # type: ignore[arg-type]
            found = re.fullmatch(r"(\d+)([-+×])(\d+)は(\d+)\{です\}", ask.answer)
            assert found
            a, sign, b, result = found.groups()
            assert (
                int(result)
                == {
                    "+": int(a) + int(b),
                    "-": int(a) - int(b),
                    "×": int(a) * int(b),
                }[sign]
            )
            if sign != "×":
                pairs.setdefault(split, set()).add(a + sign + b)
    assert pairs["train"].isdisjoint(pairs["held_out"])


def test_reading_answers_are_in_the_text() -> None:
    rng = Random(2)
    unwritten = 0
    for _ in range(1000):
        ask = reading(rng, "held_out")
        assert ask.input
        if "書いて" in ask.answer:
            unwritten += 1
        else:
            assert ask.right[0] in ask.input
            assert ask.right[0] in ask.answer
    assert 20 < unwritten < 200


def test_questions_about_the_conversation() -> None:
    rng = Random(4)
    asked = ["フランスの首都は?", "1+1は?"]
    answers = {about_conversation(rng, "train", asked).answer for _ in range(200)}
    assert answers == {
        "今は3問目{です}",
        "最初の質問は「フランスの首都は?」{です}",
        "前の質問は「1+1は?」{です}",
    }
    nothing = {about_conversation(rng, "train", []).answer for _ in range(200)}
    assert nothing == {"今は1問目{です}", "これが最初の質問{です}"}


def test_greetings_do_not_count_as_questions() -> None:
    """The number of questions in a conversation excludes greetings."""
    rng = Random(8)
    found = 0
    while found < 20:
        talk = dialogue(rng, "train")
        number = re.fullmatch(r"今は(\d+)問目\{です\}", talk.ask.answer)
        if number is None:
            continue
        found += 1
        greetings = sum(_is_greeting(turn) for turn in talk.turns)
        assert int(number[1]) == len(talk.turns) - greetings + 1


def _is_greeting(turn: Turn) -> bool:
    from issun.training.embedded.smalltalk import GREETINGS

    return any(turn.message.rstrip("!。〜") in talk.messages for talk in GREETINGS)


def test_a_role_has_a_name_and_lines() -> None:
    rng = Random(5)
    for _ in range(300):
        role = draw_role(rng, "train")
        user, assistant = role.lines
        assert user.startswith("User:")
        assert assistant.startswith("Assistant:")
        assert role.name is None or role.name in user


def test_right_answers_in_chats_need_the_style() -> None:
    for row in chat_table(1, each=50).questions:
        assert row.role is not None
        if row.role and "「なのだ」" in row.role[0]:
            assert row.right[0].endswith(("なのだ", "のだ"))


def test_the_learning_rate_schedule() -> None:
    options = PretrainOptions(
        steps=1000, warmup_steps=100, decay=0.5, chat_steps=200, chat_rate=0.3
    )
    assert rate_share(50, options) == 0.5
    assert rate_share(100, options) == rate_share(500, options) == 1
    assert rate_share(750, options) == pytest.approx(0.501)
    assert rate_share(1000, options) == pytest.approx(0.001)
    assert rate_share(1100, options) == pytest.approx(0.151)
    assert rate_share(1200, options) == pytest.approx(0.001)


def test_the_share_of_conversations() -> None:
    for chats in (0.0, 0.25, 1.0):
        found = [isinstance(item, Dialogue) for item in islice(corpus(3, chats=chats), 2000)]
        assert sum(found) / len(found) == pytest.approx(chats, abs=0.03)


def test_only_answers_are_trained() -> None:
    """All answers, in the history and at the end, but no user messages."""
    vocabulary = EMBEDDED / "spiece.model"
    encode = Encoder(vocabulary, PretrainOptions(sampled=0))
    tokenizer = SentencePieceTokenizer(vocabulary, SPECIAL)
    ids, loss_mask = encode(chat_record([], [Turn("1+1は?", "2です。")], "名前は?", "issunです。"))
    assert tokenizer.decode([int(i) for i in ids[loss_mask]]) == r"2です。\nissunです。\n"
    assert list(ids) == tokenizer.encode(
        chat_record([], [Turn("1+1は?", "2です。")], "名前は?", "issunです。"), special=True
    )
