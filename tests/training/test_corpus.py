"""The corpus of the embedded model: correct, reproducible, and disjoint from held-out data."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from issun.runtime import Turn
from issun.runtime.demonstration import EMBEDDED
from issun.runtime.text.spiece_tokenizer import SentencePieceTokenizer
from issun.training.embedded import geography, questions
from issun.training.embedded.about_conversation import about_conversation
from issun.training.embedded.arithmetic import arithmetic, is_held_out_sum, kanji_number
from issun.training.embedded.corpus import Dialogue, corpus, dialogue, is_everyday
from issun.training.embedded.everyday import normalized
from issun.training.embedded.facts import COUNTRIES, PREFECTURES
from issun.training.embedded.follow_ups import follow_up
from issun.training.embedded.held_out import chat_table, short_table
from issun.training.embedded.identity import IDENTITY, MAKER, NAME
from issun.training.embedded.outside import UNKNOWN
from issun.training.embedded.outside_phrases import ENGLISH, QUESTIONS
from issun.training.embedded.pretrain import Encoder, PretrainOptions, rate_share, record
from issun.training.embedded.questions import QAPair
from issun.training.embedded.reading import reading
from issun.training.embedded.smalltalk import CHATTER, GREETINGS
from issun.training.embedded.styles import (
    FRIEND,
    KANSAI,
    NANODA,
    POLITE,
    SAMURAI,
    STYLES,
    draw_role,
)
from issun.training.embedded.superlatives import SUPERLATIVES
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


@pytest.mark.slow
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
            if sign != "×" and "0" not in (a, b):
                pairs.setdefault(split, set()).add(a + sign + b)
    assert pairs["train"].isdisjoint(pairs["held_out"])


def test_every_sum_in_the_corpus_is_in_range_and_right(trained: list[QAPair | Dialogue]) -> None:
    """Also those that continue the one before, and none of them is held out."""
    found = 0
    for item in trained:
        for sum_ in re.findall(r"(\d+)([-+×])(\d+)は(\d+)[でなやだ]", record(item)):
            a, b, result = (int(sum_[index]) for index in (0, 2, 3))
            assert result == {"+": a + b, "-": a - b, "×": a * b}[sum_[1]]
            assert not is_held_out_sum(a, sum_[1], b)
            found += 1
    assert found > 500


def test_numbers_in_kanji() -> None:
    assert list(map(kanji_number, (0, 7, 10, 12, 20, 30, 45))) == (
        ["ゼロ", "七", "十", "十二", "二十", "三十", "四十五"]
    )


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("before", "said", "answer"),
    [
        ("日本で一番高い山", "世界では?", "世界で一番高い山はエベレスト{です}"),
        ("日本で一番高い山", "その次は?", "日本で二番目に高い山は北岳{です}"),
        ("日本で一番広い湖", "二番目は?", "日本で二番目に広い湖は霞ヶ浦{です}"),
        ("世界で一番広い国", "一番小さいのは?", "世界で一番小さい国はバチカン市国{です}"),
        ("日本で二番目に高い山", "その次は?", "それは{分かりません"),
    ],
)
def test_follow_ups_of_superlatives(before: str, said: str, answer: str) -> None:
    rng = Random(6)
    fact = next(s for s in SUPERLATIVES if s.canonical == before)
    asked = questions.superlative(rng, "train", fact)
    found = [follow_up(rng, "train", asked) for _ in range(4000)]
    answers = {ask.answer for ask in found if ask and ask.message == said}
    assert len(answers) == 1
    assert answers.pop().startswith(answer)


def test_follow_ups_about_another_country_and_the_same() -> None:
    rng = Random(7)
    asked = questions.capital(rng, "train", next(c for c in COUNTRIES if c.name == "ケニア"))
    found = {ask.answer for _ in range(1500) if (ask := follow_up(rng, "train", asked))}
    assert "ケニアはアフリカの国{です}" in found
    assert "フランスの首都はパリ{です}" in found
    assert follow_up(rng, "train", questions.greeting(rng, "train")) is None


def test_facts_about_places_name_known_places() -> None:
    names = {p.name for p in PREFECTURES}
    countries = {c.name for c in COUNTRIES}
    assert {
        p for where in (*geography.SIGHTS.values(), *geography.CITIES.values()) for p in where
    } <= names
    assert {c for where in geography.WORLD.values() for c in where} <= countries
    assert set(geography.ALIASES) <= countries
    for table, known in (
        (geography.PREFECTURE_NEIGHBOURS, names),
        (geography.COUNTRY_NEIGHBOURS, countries),
    ):
        assert set(table) | {near for all_near in table.values() for near in all_near} <= known
        for place, near in table.items():
            assert place not in near
            # Whoever has fewer than three neighbours is a neighbour of each of them.
            assert all(len(table.get(n, "###")) == 3 or place in table[n] for n in near)
    aliases = [alias for all_ in geography.ALIASES.values() for alias in all_]
    assert len(aliases) == len({*aliases, *countries}) - len(countries)
    assert set(geography.LARGEST_CITIES) <= countries


def test_the_documentation_counts_the_facts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "embedded-model.md").read_text(encoding="utf-8")
    said = " ".join(page.split())
    neighbours = len(geography.COUNTRY_NEIGHBOURS) + len(geography.ISLANDS)
    for part in (
        f"continents of {len(COUNTRIES)} countries",
        f"the largest city of {len(geography.LARGEST_CITIES)} and neighbours of {neighbours}",
        f"the prefecture of {len(geography.SIGHTS)} lakes",
        f"of {len(geography.CITIES)} more cities",
        f"the country of {len(geography.WORLD)} sights",
        f"name {len(SUPERLATIVES)} superlatives",
    ):
        assert part in said


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
    turns = [Turn(asked[0], "パリです。"), Turn(asked[1], "1+1は2です。")]
    answers = {about_conversation(rng, "train", asked, turns).answer for _ in range(300)}
    assert answers == {
        "今は3問目{です}",
        "最初の質問は「フランスの首都は?」{です}",
        "前の質問は「1+1は?」{です}",
        "2番目の質問は「1+1は?」{です}",
        "3番目の質問はまだ{ありません|ない}",
        "1+1は2です。",
    }
    nothing = {about_conversation(rng, "train", []).answer for _ in range(300)}
    assert nothing == {
        "今は1問目{です}",
        "これが最初の質問{です}",
        "2番目の質問はまだ{ありません|ない}",
        "3番目の質問はまだ{ありません|ない}",
    }


def test_after_turns_were_dropped_it_only_knows_the_last_question() -> None:
    rng = Random(4)
    turns = [Turn("1+1は?", "1+1は2です。")]
    answers = {
        about_conversation(rng, "train", ["1+1は?"], turns, cut=True).answer for _ in range(300)
    }
    assert answers == {
        "会話が長くなったので、最初の方はもう{分かりません|分からない}",
        "前の質問は「1+1は?」{です}",
        "1+1は2です。",
    }


def test_a_record_marks_that_turns_were_dropped() -> None:
    found = [item for item in islice(corpus(9), 4000) if isinstance(item, Dialogue)]
    cut = [item for item in found if item.cut]
    assert len(cut) > 40
    for item in found:
        head = record(item).split(r"指示:\n")[1]
        lines = "".join(rf"{line}\n" for line in item.role.lines)
        assert head.startswith(lines + (r"…\n" if item.cut else ""))
        assert item.cut or not head.startswith(lines + "…")


def test_greetings_do_not_count_as_questions() -> None:
    """The number of questions in a conversation excludes greetings."""
    rng = Random(8)
    found = 0
    while found < 20:
        talk = dialogue(rng, "train")
        number = re.fullmatch(r"今は(\d+)問目\{です\}", talk.ask.answer)
        if number is None or talk.cut:
            continue
        found += 1
        greetings = sum(_is_greeting(turn) for turn in talk.turns)
        assert int(number[1]) == len(talk.turns) - greetings + 1


def _is_greeting(turn: Turn) -> bool:
    """Also when the model's name stands next to it."""
    return any(
        any(phrase in turn.message for phrase in talk.messages)
        and any(style.render(talk.answer) == turn.reply for style in STYLES)
        for talk in GREETINGS
    )


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


@pytest.mark.slow
def test_the_same_words_have_the_same_answer() -> None:
    """No conversation, role included, has two answers; texts to read are their own context."""
    answers: dict[tuple[object, ...], str] = {}
    for seed in range(4):
        for item in islice(corpus(seed, chats=0.4), 2500):
            if isinstance(item, QAPair):
                known, answer = (item.message, item.input), POLITE.render(item.answer)
            else:
                known = (item.role.lines, item.cut, item.turns, item.ask.message)
                answer = item.answer
                if not item.turns and not item.role.lines and not item.cut:
                    known = (item.ask.message, None)
            assert answers.setdefault(known, answer) == answer, known
    assert len(answers) > 5000


def test_a_fixed_phrase_has_one_answer() -> None:
    talks = [*GREETINGS, *CHATTER, *IDENTITY.values(), NAME, MAKER]
    answers = [(normalized(message), talk.answer) for talk in talks for message in talk.messages]
    answers += [(normalized(message), UNKNOWN) for message in (*QUESTIONS, *ENGLISH)]
    assert len(dict(answers)) == len(set(answers))


def test_everyday_questions_are_left_out() -> None:
    asked = QAPair("capital", "英国の 首都は?", "イギリスの首都はロンドン{です}", ("ロンドン",))
    assert is_everyday(asked)
    assert not any(map(is_everyday, islice(corpus(3), 1000)))


@pytest.mark.slow
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
