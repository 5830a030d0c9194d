"""Generates questions about the places of `places`: largest cities, sights, neighbours, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from issun.training.embedded.facts import COUNTRIES, PREFECTURES
from issun.training.embedded.places import (
    ALIASES,
    CITIES,
    COUNTRY_NEIGHBOURS,
    ISLANDS,
    PREFECTURE_NEIGHBOURS,
    SIGHTS,
    WORLD,
    largest_cities,
)
from issun.training.embedded.questions import (
    TAILS,
    TAILS_HELD_OUT,
    WHERE,
    WHERE_HELD_OUT,
    QAPair,
    blur,
    last_held_out,
    opened,
    others,
    wording,
)
from issun.training.embedded.styles import Split

LARGEST_CITIES = largest_cities({country.name: country.capital for country in COUNTRIES})

_LARGEST_CITY = (
    "{x}で一番大きい都市", "{x}で一番大きな街", "{x}で一番大きい町", "{x}最大の都市", "{x}で最大の都市", "{x}で最も大きい都市",
    "{x}で一番人口が多い都市", "{x}の最大都市", "{x}の一番大きい都市", "{x}でいちばん大きい街", "{x}で人口が一番多い街",
    "{x}で最も人口の多い都市", "{x}で一番大きい市", "{x}の中で一番大きな都市",
    "{x}で一番の大都市", "{x}の一番大きな街",
)  # fmt: skip
_PREFECTURE_OF = (
    "{x}は何県?", "{x}は何県ですか?", "{x}は何県にある?", "{x}は何県にありますか?", "{x}はどこの県?", "{x}はどこの県にある?",
    "{x}はどこにある?", "{x}はどこにありますか?", "{x}があるのは何県?", "{x}がある県は?", "{x}はどの県にありますか?",
    "{x}って何県?", "{x}って何県にあるの?", "{x}ってどこ?", "{x}の場所は?", "{x}はどの都道府県にありますか?", "{x}の県は?",
    "{x}があるのはどこの県ですか?", "{x}はどこ?", "{x}はどこの都道府県?", "{x}は何県にあるの?", "{x}の場所を教えて",
    "{x}は何県だっけ?", "{x}はどこですか?", "{x} 何県", "{x}が何県か教えて", "{x}はどの都道府県?", "{x}は日本のどこにある?",
    "{x}は何県だったかな?", "{x}がある都道府県を教えてください。", "{x}はどの県でしたっけ?",
)  # fmt: skip
_COUNTRY_OF = (
    "{x}はどこの国?", "{x}はどこの国にある?", "{x}はどこの国にありますか?", "{x}がある国は?", "{x}はどの国にある?",
    "{x}って何という国にあるの?", "{x}があるのはどこの国?", "{x}ってどこの国?", "{x}はどこ?", "{x}はどこにある?",
    "{x}はどこの国ですか?", "{x}はどこにありますか?", "{x}は何国?", "{x}があるのはどの国ですか?", "{x}の国は?",
    "{x}って、どこの国だっけ?", "{x}はどの国ですか?", "{x}は世界のどこにある?",
    "{x}はどこの国でしょう?", "{x}がある国を教えてください。",
)  # fmt: skip
_NEIGHBOURS = (
    "{x}の隣の{k}は?", "{x}の隣はどこの{k}?", "{x}の隣にある{k}は?", "{x}に隣接する{k}は?", "{x}と隣り合う{k}は?",
    "{x}の隣の{k}はどこ?", "{x}の隣の{k}はどこですか?", "{x}の隣にある{k}はどこ?", "{x}に隣り合う{k}を教えて",
    "{x}の隣の{k}を教えて", "{x}と接している{k}は?", "{x}の隣は何という{k}?", "{x}の周りの{k}は?", "{x}のお隣の{k}は?",
    "{x}に接する{k}はどこですか?", "{x}のとなりの{k}は?", "{x}の隣の{k}を挙げて",
    "{x}の隣にはどんな{k}がある?", "{x}の隣り合わせの{k}は?",
)  # fmt: skip
_NO_NEIGHBOUR = "{x}は海に囲まれていて、隣に陸続きの{k}は{{ありません|ない}}"
_MEMBERS = (
    "{x}の県は?", "{x}にある県は?", "{x}には何県がある?", "{x}の県を教えて", "{x}の都道府県は?", "{x}にはどんな県がありますか?",
    "{x}の県を全部教えて", "{x}に入る県は?", "{x}の県の名前は?", "{x}に属する県を教えてください。", "{x}の県を挙げて",
    "{x}はどの県でできている?", "{x}に含まれる都道府県は?",
)  # fmt: skip

# Numbers and lists that people ask for: (wordings, of which the last is held out; answer; right).
_COUNTED = (
    ("日本の都道府県はいくつ? 都道府県の数は? 都道府県は全部でいくつ? 日本には都道府県がいくつある? 都道府県はいくつありますか? "
     "日本の都道府県の数を教えて 都道府県って何個? 都道府県は全部でいくつありますか?",
     "日本の都道府県は47{です}", "47"),
    ("日本の県はいくつ? 県の数は? 県は全部でいくつありますか? 日本に県はいくつある? 県っていくつあるの? 日本の県の数は?",
     "日本の県は43{です}", "43"),
    ("海のない県は? 海がない県はどこ? 海に面していない県を教えて 内陸県は? 海なし県は? 内陸の県はどこですか? 海に面しない県は? "
     "海のない県を教えてください。",
     "海のない県は栃木県、群馬県、埼玉県、山梨県、長野県、岐阜県、滋賀県、奈良県{です}", "奈良県"),
    ("四国の県の数は? 四国は何県? 四国にはいくつ県がある? 四国には県がいくつありますか? 四国にある県の数は?",
     "四国の県は4つ{です}", "4つ"),
    ("東北の県の数は? 東北は何県? 東北にはいくつ県がある? 東北地方は何県ありますか? 東北地方の県の数を教えて",
     "東北地方の県は6つ{です}", "6つ"),
    ("大陸はいくつある? 世界の大陸の数は? 大陸は全部でいくつ? 大陸っていくつ? 地球に大陸はいくつありますか?",
     "大陸は6つ{です}", "6つ"),
    ("大洋はいくつ? 三大洋は? 世界の三大洋は何? 三大洋を教えて 三大洋とは? 世界の三大洋を教えてください。",
     "三大洋は太平洋、大西洋、インド洋{です}", "インド洋"),
    ("日本三景は? 日本三景はどこ? 日本三景を教えて 日本三景とは? 日本三景って何? 日本三景はどこですか?",
     "日本三景は松島、天橋立、宮島{です}", "天橋立"),
    ("日本三名園は? 日本の三名園は? 三名園を教えて 三大庭園は? 日本三名園はどこ? 日本三名園を教えてください。",
     "日本三名園は兼六園、偕楽園、後楽園{です}", "兼六園"),
    ("一年は何日? 1年は何日? 一年は何日ですか? 1年は何日ある? 一年って何日? 1年は何日ですか?",
     "1年は365日{です}", "365日"),
    ("一日は何時間? 1日は何時間? 一日は何時間ですか? 1日は何時間ある? 一日って何時間? 1日は何時間ですか?",
     "1日は24時間{です}", "24時間"),
    ("一時間は何分? 1時間は何分? 一時間は何分ですか? 1時間って何分? 一時間は何分ある? 1時間は何分ですか?",
     "1時間は60分{です}", "60分"),
    ("一分は何秒? 1分は何秒? 一分は何秒ですか? 1分って何秒? 一分は何秒ある? 1分は何秒ですか?",
     "1分は60秒{です}", "60秒"),
    ("一週間は何日? 1週間は何日? 一週間は何日ですか? 1週間って何日? 一週間は何日ある? 1週間は何日ですか?",
     "1週間は7日{です}", "7日"),
    ("一年は何か月? 1年は何か月? 一年は何ヶ月? 1年は何カ月ですか? 一年って何か月? 1年は何か月ですか?",
     "1年は12か月{です}", "12か月"),
)  # fmt: skip


def _pair(
    rng: Random,
    split: Split,
    message: str,
    answer: str,
    right: tuple[str, ...],
    *,
    category: str,
    subject: str = "",
    wrong: tuple[str, ...] = (),
) -> QAPair:
    message = blur(rng, split, opened(rng, split, message))
    return QAPair(category, message, answer, right, wrong, subject=subject)


def largest_city(rng: Random, split: Split, country: str | None = None) -> QAPair:
    """The largest city of a country."""
    x = country or rng.choice(list(LARGEST_CITIES))
    spelled = rng.choice([x, x, x, *ALIASES.get(x, ())])
    topic = wording(rng, split, *last_held_out(_LARGEST_CITY, 2), x).format(x=spelled)
    message = topic + wording(rng, split, TAILS + WHERE, TAILS_HELD_OUT + WHERE_HELD_OUT, x)
    city = LARGEST_CITIES[x]
    wrong = others(rng, list(LARGEST_CITIES.values()), x, city)
    answer = f"{x}で一番大きい都市は{city}{{です}}"
    return _pair(
        rng, split, message, answer, (city,), category="largest city", subject=x, wrong=wrong
    )


def listed(places: Sequence[str]) -> str:
    """Places joined as in an answer: 静岡県と山梨県."""
    return "と".join(places)


def prefecture_of(rng: Random, split: Split, place: str | None = None) -> QAPair:
    """The prefectures of a sight, or of a city that is not a seat of government."""
    x = place or rng.choice(list(SIGHTS if rng.random() < 0.72 else CITIES))
    where = SIGHTS.get(x) or CITIES[x]
    spelled = x + "市" if x in CITIES and rng.random() < 0.15 else x
    message = wording(rng, split, *last_held_out(_PREFECTURE_OF, 3), x).format(x=spelled)
    answer = f"{x}は{listed(where)}に{{あります|ある}}"
    return _pair(rng, split, message, answer, where, category="prefecture of", subject=x)


def country_of(rng: Random, split: Split, place: str | None = None) -> QAPair:
    """The countries of a sight or of a city that is not a capital."""
    x = place or rng.choice(list(WORLD))
    message = wording(rng, split, *last_held_out(_COUNTRY_OF, 2), x).format(x=x)
    answer = f"{x}は{listed(WORLD[x])}に{{あります|ある}}"
    return _pair(rng, split, message, answer, WORLD[x], category="country of", subject=x)


def neighbours(rng: Random, split: Split, place: str | None = None) -> QAPair:
    """Up to three neighbours on land of a prefecture or a country, or that there are none."""
    if place is None:
        pool = PREFECTURE_NEIGHBOURS if rng.random() < 0.5 else COUNTRY_NEIGHBOURS
        alone = ["北海道", "沖縄県"] if pool is PREFECTURE_NEIGHBOURS else ISLANDS
        place = rng.choice([*pool, *alone])
    x = place
    near = PREFECTURE_NEIGHBOURS.get(x) or COUNTRY_NEIGHBOURS.get(x) or ()
    inside = any(p.name == x for p in PREFECTURES)
    kind = "県" if inside else "国"
    spelled = rng.choice([x, x, x, *ALIASES.get(x, ())])
    if inside and x != "北海道" and rng.random() < 0.25:
        spelled = x[:-1]
    form = wording(rng, split, *last_held_out(_NEIGHBOURS, 2), x)
    message = form.format(x=spelled, k=kind)
    if not near:
        answer = _NO_NEIGHBOUR.format(x=x, k=kind)
        return _pair(rng, split, message, answer, ("海に囲まれ",), category="neighbours", subject=x)
    more = "などがある" if len(near) == 3 else "がある"
    polite = more.replace("ある", "あります")
    answer = f"{x}の隣には{'、'.join(near)}{{{polite}|{more}}}"
    return _pair(rng, split, message, answer, near, category="neighbours", subject=x)


def members(rng: Random, split: Split, region: str | None = None) -> QAPair:
    """The prefectures of a region."""
    x = region or rng.choice([r for r in {p.region: 0 for p in PREFECTURES} if r != "北海道地方"])
    names = [p.name for p in PREFECTURES if p.region == x]
    spelled = x if x == "中国地方" or rng.random() < 0.7 else x.removesuffix("地方")
    message = wording(rng, split, *last_held_out(_MEMBERS, 2), x).format(x=spelled)
    answer = f"{x}の都道府県は{'、'.join(names)}{{です}}"
    return _pair(rng, split, message, answer, ("、".join(names),), category="members", subject=x)


def counted(rng: Random, split: Split) -> QAPair:
    """How many prefectures, days of a year and the like there are, and a few famous lists."""
    messages, answer, right = rng.choice(_COUNTED)
    *trained, held_out = messages.split()
    message = held_out if split == "held_out" else rng.choice(trained)
    return _pair(rng, split, message, answer, (right,), category="counted")
