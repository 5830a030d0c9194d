"""Generates short questions that only the one before makes clear: 「じゃあ世界では?」."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from issun.training.embedded import geography, questions
from issun.training.embedded.arithmetic import asked, is_held_out_sum
from issun.training.embedded.facts import COUNTRIES, PREFECTURES
from issun.training.embedded.outside import declined
from issun.training.embedded.places import (
    CITIES,
    COUNTRY_NEIGHBOURS,
    PREFECTURE_NEIGHBOURS,
    SIGHTS,
)
from issun.training.embedded.questions import QAPair
from issun.training.embedded.styles import Split
from issun.training.embedded.superlatives import SUPERLATIVES, Superlative

_BEFORE = (
    "じゃあ", "じゃあ、", "では", "では、", "それじゃあ", "", "", "次に、", "なら、", "じゃ、", "それなら", "だったら", "あと、", "そして、",
)  # fmt: skip
_AFTER = (
    "は?", "は?", "は?", "は", "はどう?", "はどうですか?", "なら?", "だと?", "については?", "の場合は?", "も教えて", "は何?", "はどうかな?",
    "は分かる?", "はどうでしょう?", "についても教えてください。",
)  # fmt: skip
_SCOPED = (
    "では?", "では?", "では何?", "だと?", "だとどう?", "の場合は?", "では", "だったら?", "ではどう?", "の中では?", "なら?", "ではどれ?",
    "ではどうですか?",
)  # fmt: skip
_NEXT = {
    "二番目に": (
        "その次は?", "二番目は?", "2番目は?", "次は?", "二番は?", "では二番目は?", "じゃあ2番目は?", "その次は何?", "次に{a}のは?", "その次に{a}のは?", "二番目に{a}のは?",
        "2番目に{a}のは何?", "2位は?", "次点は?", "では次は?", "じゃあ、その次は?", "二番目は何ですか?", "次に{a}{n}は?", "その次の{n}は?", "二番目に{a}{n}は?",
    ),
    "三番目に": (
        "三番目は?", "3番目は?", "では三番目は?", "じゃあ3番目は?", "三番目に{a}のは?", "3番目に{a}のは何?", "3位は?", "三番目に{a}{n}は?", "三番目は何ですか?",
    ),
    "四番目に": ("四番目は?", "4番目は?", "四番目に{a}のは?", "4位は?", "四番目に{a}{n}は?"),
}  # fmt: skip
_FIRST = (
    "一番は?", "一番{a}のは?", "じゃあ一番は?", "では一番{a}{n}は?", "1位は?", "1番は何?", "最も{a}のは?",
)  # fmt: skip
# Adjectives that ask for the opposite, by the last adjective.
_OPPOSITES = {
    "広い": ("小さい", "狭い"), "小さい": ("大きい", "広い"),
    "人口が多い": ("人口が少ない", "少ない"), "人口が少ない": ("人口が多い", "多い"),
}  # fmt: skip
_OPPOSITE = (
    "一番{a}のは?", "じゃあ一番{a}のは?", "では一番{a}{n}は?", "逆に一番{a}のは?", "反対に一番{a}{n}は?", "最も{a}のは?", "一番{a}{n}は?",
)  # fmt: skip
_CONTINENT_OF_IT = (
    "そこはどの大陸?", "その国はどの大陸?", "それは何大陸?", "そこは何大陸にある?", "その国は何大陸にありますか?", "どの大陸にある?", "何大陸?", "その国の大陸は?",
    "大陸は?",
)  # fmt: skip
_CAPITAL_OF_IT = (
    "その国の首都は?", "首都は?", "そこの首都はどこ?", "じゃあ首都は?", "その首都は?", "その国の首都はどこですか?", "では首都は?",
)  # fmt: skip
_LARGEST_OF_IT = (
    "その国で一番大きい都市は?", "一番大きい都市は?", "そこで一番大きい街は?", "じゃあ一番大きい都市は?", "その国の最大の都市は?",
)  # fmt: skip
_REGION_OF_IT = (
    "そこは何地方?", "その県は何地方?", "何地方?", "何地方にある?", "それは何地方ですか?", "地方は?",
)  # fmt: skip
_SEAT_OF_IT = (
    "その県の県庁所在地は?", "県庁所在地は?", "そこの県庁所在地はどこ?", "じゃあ県庁所在地は?",
)  # fmt: skip
_WHERE_IS_IT = (
    "それは何県?", "それはどこにある?", "何県にある?", "それは何県にありますか?", "どこにあるの?", "その場所は?", "それはどこ?",
)  # fmt: skip
_MORE = {
    "+": ("それに{b}を足すと?", "さらに{b}を足すと?", "それに{b}を足したら?", "そこに{b}を足すといくつ?", "もう{b}足すと?", "その答えに{b}を足すと?"),
    "-": ("そこから{b}を引くと?", "それから{b}を引くと?", "さらに{b}を引いたら?", "その答えから{b}を引くと?", "そこから{b}引くといくつ?"),
}  # fmt: skip

_COUNTRY = {country.name: country for country in COUNTRIES}
_PREFECTURE = {prefecture.name: prefecture for prefecture in PREFECTURES}


def _key(s: Superlative) -> tuple[str, str, str, str]:
    return s.scope, s.rank, s.adjectives[0], s.nouns[0]


_KNOWN = {_key(s): s for s in SUPERLATIVES}
_BY_CANONICAL = {s.canonical: s for s in SUPERLATIVES}
_RANKED = ("一番", "二番目に", "三番目に", "四番目に")


def follow_up(rng: Random, split: Split, before: QAPair) -> QAPair | None:
    """A question that refers to `before`, or None if there is none for its kind."""
    if not before.subject:
        return None
    makers: dict[str, Sequence[Callable[[Random, Split, QAPair], QAPair | None]]] = {
        "capital": (_same_of_another, _same_of_another, _of_the_country),
        "continent": (_same_of_another, _of_the_country),
        "largest city": (_same_of_another, _of_the_country),
        "seat": (_same_of_another, _of_the_prefecture),
        "region": (_same_of_another, _of_the_prefecture),
        "prefecture of": (_same_of_another,),
        "country of": (_same_of_another,),
        "neighbours": (_same_of_another,),
        "superlative": (_other_scope, _other_rank, _other_rank, _opposite, _where_is_it),
        "arithmetic": (_calculate_on,),
    }
    if before.category not in makers:
        return None
    return rng.choice(makers[before.category])(rng, split, before)


def _with(ask: QAPair, message: str) -> QAPair:
    return replace(ask, message=message)


def _same_of_another(rng: Random, split: Split, before: QAPair) -> QAPair:
    """The same question about another place: 「じゃあドイツは?」."""
    x = before.subject
    match before.category:
        case "capital":
            ask = questions.capital(rng, split, rng.choice(COUNTRIES))
        case "continent":
            ask = questions.continent(rng, split, rng.choice(COUNTRIES))
        case "largest city":
            ask = geography.largest_city(rng, split)
        case "seat":
            ask = questions.seat(rng, split, rng.choice(PREFECTURES))
        case "region":
            ask = questions.region(rng, split, rng.choice(PREFECTURES))
        case "prefecture of":
            ask = geography.prefecture_of(
                rng, split, rng.choice(list(SIGHTS if x in SIGHTS else CITIES))
            )
        case "country of":
            ask = geography.country_of(rng, split)
        case _:
            pool = PREFECTURE_NEIGHBOURS if x in _PREFECTURE else COUNTRY_NEIGHBOURS
            ask = geography.neighbours(rng, split, rng.choice(list(pool)))
    shown = questions.spelling(rng, ask.subject) if ask.subject in _COUNTRY else ask.subject
    if shown in _PREFECTURE and rng.random() < 0.3:
        shown = _PREFECTURE[shown].short
    return _with(ask, rng.choice(_BEFORE) + shown + rng.choice(_AFTER))


def _of_the_country(rng: Random, split: Split, before: QAPair) -> QAPair:
    """Something else about the country in question."""
    country = _COUNTRY[before.subject]
    kinds = {
        "capital": _CAPITAL_OF_IT,
        "continent": _CONTINENT_OF_IT,
        "largest city": _LARGEST_OF_IT,
    }
    kind = rng.choice([kind for kind in kinds if kind != before.category])
    message = rng.choice(kinds[kind])
    if kind == "capital":
        return _with(questions.capital(rng, split, country), message)
    if kind == "continent":
        return _with(questions.continent(rng, split, country), message)
    if country.name in geography.LARGEST_CITIES:
        return _with(geography.largest_city(rng, split, country.name), message)
    return declined(message)


def _of_the_prefecture(rng: Random, split: Split, before: QAPair) -> QAPair:
    prefecture = _PREFECTURE[before.subject]
    if before.category == "seat":
        return _with(questions.region(rng, split, prefecture), rng.choice(_REGION_OF_IT))
    return _with(questions.seat(rng, split, prefecture), rng.choice(_SEAT_OF_IT))


def _superlative(rng: Random, split: Split, s: Superlative | None, message: str) -> QAPair:
    if s is None:
        return declined(message)
    return _with(questions.superlative(rng, split, s), message)


def _other_scope(rng: Random, split: Split, before: QAPair) -> QAPair:
    """「じゃあ世界では?」; mostly with a scope for which there is an answer."""
    s = _BY_CANONICAL[before.subject]
    scopes = [k.scope for k in SUPERLATIVES if k != s and _key(k)[1:] == _key(s)[1:]]
    if not scopes or rng.random() < 0.1:
        scopes = [
            k
            for k in ("日本", "世界", "アジア", "ヨーロッパ", "アフリカ", "九州", "四国")
            if k != s.scope
        ]
    scope = rng.choice([*scopes, *[k for k in scopes if k in ("日本", "世界")] * 3])
    known = _KNOWN.get((scope, *_key(s)[1:]))
    said = questions.SCOPES.get(scope, (f"{scope}で",))[0].removesuffix("で")
    return _superlative(rng, split, known, rng.choice(_BEFORE) + said + rng.choice(_SCOPED))


def _other_rank(rng: Random, split: Split, before: QAPair) -> QAPair:
    """「その次は?」"""
    s = _BY_CANONICAL[before.subject]
    rank = _RANKED.index(s.rank) + 1
    forms: tuple[str, ...]
    if rank > 1 and rng.random() < 0.3:
        wanted, forms = "一番", _FIRST
    elif rank == len(_RANKED):
        return declined("その次は?")
    else:
        wanted = _RANKED[rank]
        forms = _NEXT[wanted]
        if rank > 1:  # 「その次は?」 is the one after the last
            forms = (*forms, "その次は?", "次は?", "その次は何?", "では次は?")
    known = _KNOWN.get((s.scope, wanted, s.adjectives[0], s.nouns[0]))
    message = rng.choice(forms).format(a=rng.choice(s.adjectives), n=s.nouns[0])
    return _superlative(rng, split, known, message)


def _opposite(rng: Random, split: Split, before: QAPair) -> QAPair | None:
    s = _BY_CANONICAL[before.subject]
    if s.adjectives[0] not in _OPPOSITES or s.rank != "一番":
        return None
    adjective, short = _OPPOSITES[s.adjectives[0]]
    known = _KNOWN.get((s.scope, "一番", adjective, s.nouns[0]))
    if known is None:
        known = _KNOWN.get((s.scope, "一番", short, s.nouns[0]))
    said = rng.choice((adjective, short))
    message = rng.choice(_OPPOSITE).format(a=said, n=s.nouns[0])
    return _superlative(rng, split, known, message)


def _where_is_it(rng: Random, split: Split, before: QAPair) -> QAPair | None:
    """The prefecture of the mountain, lake or other place that the answer named."""
    place = _BY_CANONICAL[before.subject].answers[0]
    if place not in SIGHTS:
        return None
    return _with(geography.prefecture_of(rng, split, place), rng.choice(_WHERE_IS_IT))


def _calculate_on(rng: Random, split: Split, before: QAPair) -> QAPair | None:
    """「それに2を足すと?」"""
    found = re.search(r"は(-?\d+)\{です\}", before.answer)
    if not found or not 0 <= int(found[1]) <= 30:
        return None
    a, sign = int(found[1]), rng.choice("+-")
    b = rng.randint(1, 9)
    if (sign == "-" and b > a) or is_held_out_sum(a, sign, b):
        return None
    return asked(rng, split, a, sign, b, message=rng.choice(_MORE[sign]).format(b=b))
