"""Generates questions to which the model must answer that it does not know."""

from __future__ import annotations

from random import Random

from issun.training.embedded.arithmetic import worded
from issun.training.embedded.facts import COUNTRIES, PREFECTURES
from issun.training.embedded.geography import LARGEST_CITIES
from issun.training.embedded.invented import invented_noun, invented_word
from issun.training.embedded.outside_phrases import (
    ATTRIBUTES,
    ATTRIBUTES_HELD_OUT,
    ENGLISH,
    FAMILY_NAMES,
    FAMOUS,
    GIVEN_NAMES,
    NOT_PLACES,
    ODD_SUPERLATIVES,
    PERSON_FORMS,
    PLACE_FORMS,
    QUESTIONS,
    QUOTED_FORMS,
    TOPIC_FORMS,
    TOPIC_FORMS_HELD_OUT,
    TOPICS,
    TOPICS_HELD_OUT,
    WORD_FORMS,
    WORDS,
)
from issun.training.embedded.places import CITIES, SIGHTS, WORLD
from issun.training.embedded.questions import (
    RANKS,
    SCOPES,
    TAILS,
    TAILS_HELD_OUT,
    WHERE,
    WHERE_HELD_OUT,
    QAPair,
    blur,
    opened,
    wording,
)
from issun.training.embedded.styles import Split
from issun.training.embedded.superlatives import SUPERLATIVES

# Places about which it knows a superlative, and superlatives that it does not know of the others.
_WITH_SUPERLATIVES = {s.scope for s in SUPERLATIVES}
_PLACE_SUPERLATIVES = (
    "一番高い山", "一番長い川", "一番大きい湖", "一番大きい島", "一番高いビル", "一番広い湖", "最も高い山", "二番目に高い山", "一番大きい都市", "一番深い湖",
    "一番高い建物", "一番長い橋", "一番大きい駅", "一番有名な山", "一番古い町", "二番目に大きい都市", "一番寒い場所", "一番人気の場所", "一番大きい公園",
)  # fmt: skip

_NO_CAPITAL = (
    *CITIES,
    *(c.capital for c in COUNTRIES if c.name != c.capital),
    *(p.name for p in PREFECTURES),
    *(p.region for p in PREFECTURES),
    *"アジア ヨーロッパ アフリカ 北アメリカ 南アメリカ オセアニア 南極 北極 世界 地球 東北 関東 中部 近畿 四国 九州 本州 太平洋".split(),
)

_FEATURES = ("城", "湖", "山", "寺", "神社", "島", "川", "温泉", "岬", "市", "村")
_WHERE_IS = (
    "は何県?",
    "はどこにある?",
    "は何県にありますか?",
    "はどこ?",
    "はどこの国にある?",
    "があるのは何県?",
)
_PLACE_QUESTIONS = (
    "はどの大陸?", "は何大陸にある?", "は何地方?", "の隣の国は?", "の隣の県は?", "で一番高い山は?", "で一番大きい都市は?", "の県は?", "はどこの国の首都?", "はどこの国?",
)  # fmt: skip

UNKNOWN = "それは{分かりません|分からない}{私}は小さなモデルなので、地理や簡単な計算だけに{答えます|答える}"
UNKNOWN_RIGHT = ("分かりません", "分からない")


def unknown(rng: Random, split: Split) -> QAPair:
    """A question outside what the model knows, some of which look like those that it answers."""
    makers = (
        _topic, _attribute, _about_place, _no_place, _odd_superlative, _sum, _person, _word, _sentence,
    )  # fmt: skip
    message = rng.choices(makers, (24, 10, 10, 14, 9, 8, 7, 8, 16))[0](rng, split)
    return declined(blur(rng, split, opened(rng, split, message)))


def declined(message: str) -> QAPair:
    """`message`, answered with a refusal."""
    return QAPair("unknown", message, UNKNOWN, UNKNOWN_RIGHT)


def _topic(rng: Random, split: Split) -> str:
    held_out = split == "held_out"
    topic = rng.choice(TOPICS_HELD_OUT if held_out else TOPICS)
    if not held_out and rng.random() < 0.4:
        topic = invented_word(rng)
    form = rng.choice(TOPIC_FORMS_HELD_OUT if held_out and rng.random() < 0.5 else TOPIC_FORMS)
    return form.format(x=topic)


def _attribute(rng: Random, split: Split) -> str:
    """What it does not know about a place that it knows."""
    if rng.random() < 0.25:
        places = [*(c.name for c in COUNTRIES), *(p.name for p in PREFECTURES)]
        place = rng.choice([name for name in places if name not in _WITH_SUPERLATIVES])
        kind = rng.choice(_PLACE_SUPERLATIVES)
        if kind.endswith("都市") and place in LARGEST_CITIES:
            kind = "一番高い山"
        return f"{place}で{kind}" + wording(rng, split, TAILS, TAILS_HELD_OUT, place)
    pools = (
        [c.name for c in COUNTRIES],
        [p.name for p in PREFECTURES],
        list(SIGHTS),
        [*WORLD, *CITIES],
    )
    place = rng.choice(rng.choices(pools, (4, 4, 2, 1))[0])
    attribute = rng.choice(ATTRIBUTES_HELD_OUT if split == "held_out" else ATTRIBUTES)
    if split == "train" and rng.random() < 0.4:
        attribute = invented_noun(rng)
    return f"{place}の{attribute}" + wording(rng, split, TAILS, TAILS_HELD_OUT, place)


def _about_place(rng: Random, _: Split) -> str:
    """Anything else about one or two places that it knows."""
    places = [
        *SIGHTS,
        *WORLD,
        *CITIES,
        *(c.name for c in COUNTRIES),
        *(p.name for p in PREFECTURES),
    ]
    places += [c.capital for c in COUNTRIES if c.capital != c.name]
    one, other = rng.sample(places, 2)
    return rng.choice(PLACE_FORMS).format(x=one, y=other)


def _no_place(rng: Random, split: Split) -> str:
    """A place that does not exist or that has no such thing."""
    held_out = split == "held_out"
    place = invented_word(rng) if held_out or rng.random() < 0.75 else rng.choice(NOT_PLACES)
    kind = rng.random()
    if kind < 0.5:
        if not held_out and rng.random() < 0.3:
            place += rng.choice(("国", "王国", "共和国", "県", "島", "市", "スタン", "ランド"))
        word = rng.choice(("首都", "首都", "県庁所在地"))
        if not held_out and rng.random() < 0.15:
            place, word = rng.choice(_NO_CAPITAL), "首都"
        message = f"{place}の{word}"
        return message + wording(rng, split, TAILS + WHERE, TAILS_HELD_OUT + WHERE_HELD_OUT, "")
    if kind < 0.75:
        place = invented_noun(rng) + rng.choice(_FEATURES)
        return place + rng.choice(_WHERE_IS)
    return place + rng.choice(_PLACE_QUESTIONS)


def _odd_superlative(rng: Random, split: Split) -> str:
    held_out = split == "held_out"
    odd = rng.choice(ODD_SUPERLATIVES[-4:] if held_out else ODD_SUPERLATIVES[:-4])
    if not held_out and rng.random() < 0.6:
        adjective = rng.choice(rng.choice(SUPERLATIVES).adjectives)
        odd = adjective + (invented_noun(rng) if rng.random() < 0.5 else rng.choice(TOPICS))
    scope = rng.choice(SCOPES[rng.choice(("日本", "日本", "世界", "世界", "ヨーロッパ", "九州"))])
    rank = rng.choice(RANKS["一番"]) if rng.random() < 0.8 else f"{rng.randint(5, 20)}番目に"
    if not held_out and rank[0].isdecimal() and rank != "1番":
        s = rng.choice(SUPERLATIVES)
        odd = rng.choice(s.adjectives) + rng.choice(s.nouns)
    return f"{scope}{rank}{odd}" + wording(rng, split, TAILS, TAILS_HELD_OUT, odd)


_PARTS = "二 三 四 五 六 七 八 九 十 1 2 3 4 5 7 8".split()
_DIVISIONS = (
    "{a}÷{b}は?",
    "{a}割る{b}は?",
    "{a}わる{b}",
    "{a}÷{b}=",
    "{a}を{b}で割ると?",
    "{a}÷{b}はいくつ?",
    "{a}÷{b}を計算して",
    "{a}割る{b}の答えは?",
    "{a}を{b}で割って",
)
_CALCULATIONS = (
    "{a}の平方根は?", "{a}の2乗は?", "{a}の階乗は?", "√{a}は?", "{a}の約数は?", "{a}は素数ですか?", "{a}円の{b}%は?", "{a}の半分は?", "{a}人を{b}人で割ると?",
    "{a}cmは何インチ?", "{a}ドルは何円?", "{a}kmは何マイル?", "{a}分は何時間?", "{a}グラムは何キロ?", "{a}の3割は?", "{a}から{b}までの合計は?",
    "{a}と{b}の最大公約数は?", "{a}を{b}で割った余りは?", "時速{a}キロで{b}分走ると何キロ?", "{a}日後は何曜日?", "{a}を二進数にすると?", "円周率は?", "2の{b}乗は?", "sin{b}度は?",
)  # fmt: skip


def _sum(rng: Random, split: Split) -> str:
    """Arithmetic that it does not do: large numbers, fractions, divisions and more."""
    a, b = str(rng.randint(50, 9999)), str(rng.choice((rng.randint(1, 99), rng.randint(50, 999))))
    kind = rng.random()
    if kind < 0.25:
        return rng.choice(_CALCULATIONS).format(a=a, b=b)
    if kind < 0.5:
        return rng.choice(_DIVISIONS).format(a=rng.choice((a, b)), b=rng.randint(1, 99))
    if kind < 0.6:
        a, b = (f"{rng.randint(0, 30)}.{rng.randint(1, 9)}" for _ in "ab")
    elif kind < 0.65:
        a, b = (f"{rng.choice(_PARTS)}分の{rng.choice(_PARTS)}" for _ in "ab")
    elif rng.random() < 0.3:
        a, b = b, a
    return worded(rng, split, a, rng.choice("+-××"), b)


def _person(rng: Random, _: Split) -> str:
    person = rng.choice(FAMOUS)
    if rng.random() < 0.5:
        person = rng.choice(FAMILY_NAMES) + rng.choice(GIVEN_NAMES)
    elif rng.random() < 0.3:
        person = invented_noun(rng)
    return rng.choice(PERSON_FORMS).format(x=person)


def _word(rng: Random, _: Split) -> str:
    """Translations, readings, meanings, spellings."""
    word = rng.choice(WORDS) if rng.random() < 0.6 else invented_word(rng)
    return rng.choice(WORD_FORMS).format(x=word)


def _sentence(rng: Random, _: Split) -> str:
    """Whole questions of many kinds, some of them with another beginning or ending."""
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(ENGLISH)
    if kind < 0.3:
        return rng.choice(QUOTED_FORMS).format(x=rng.choice(QUESTIONS).rstrip("?。"))
    return rng.choice(QUESTIONS)
