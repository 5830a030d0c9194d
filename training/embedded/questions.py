"""Generates questions and answers in many wordings, some of which are held out for evaluation.

Wordings (endings, openings, sentences) in the `HELD_OUT` lists never occur in training. Neither do
combinations of a training wording with a prefecture, country or superlative for which `is_held_out`
is true.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from issun.training.embedded.facts import COUNTRIES, PREFECTURES, Country, Prefecture
from issun.training.embedded.identity import IDENTITY, MAKER, NAME
from issun.training.embedded.invented import noise
from issun.training.embedded.places import ALIASES, CAPITAL_ALIASES
from issun.training.embedded.smalltalk import CHATTER, GREETINGS
from issun.training.embedded.styles import Split
from issun.training.embedded.superlatives import SUPERLATIVES, Superlative
from issun.training.embedded.talk import Talk


@dataclass(frozen=True, slots=True)
class QAPair:
    """A message and its answer template; `counts` is False if the message is not a question."""

    category: str
    message: str
    answer: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    input: str | None = None
    counts: bool = True
    subject: str = ""  # the country or prefecture in question


OPENINGS = (
    *[""] * 14, "ねえ、", "えっと、", "質問です。", "すみません、", "ところで、", "じゃあ、", "では、",
    "次の質問です。", "ちょっと聞きたいんだけど、", "クイズです。", "問題。", "教えて、", "あの、", "それで、",
    "ねえねえ、", "もう一つ質問。", "次は、",
)  # fmt: skip
OPENINGS_HELD_OUT = ("あのさ、", "お尋ねします。", "もしよければ、", "そういえば、", "さて、")

# Endings after 「フランスの首都」.
TAILS = (
    "は?", "は?", "は?", "は", "は何?", "は何ですか?", "は何でしょう?", "は何でしょうか?", "はなに?",
    "を教えて", "を教えて。", "を教えてください。", "を教えてくれる?", "を教えてくれますか?", "を答えて",
    "を答えてください。", "を答えなさい。", "を言って", "って?", "って何?", "って何だっけ?", "って何ですか?",
    "が知りたい", "が知りたいです。", "を知りたい。", "がわからない", "を知ってる?", "を知っていますか?",
    "をお願いします", "の名前は?", "の名前を教えて", "の名前は何ですか?", "といえば?", "といったら?",
    "は何という?", "は何といいますか?", "は何だっけ?", "を言ってみて", "、わかる?", "はわかりますか?",
    "について教えて", "を思い出せない", "を当ててみて", "が思い出せません。", "は何かな?",
)  # fmt: skip
WHERE = (
    "はどこ?", "はどこ?", "はどこですか?", "はどこかな?", "はどこだっけ?", "はどこでしょう?", "はどこにある?",
    "はどこでしょうか?", "ってどこ?", "ってどこですか?", "ってどこなの?", "ってどこだっけ?", "はどこになりますか?",
    "がどこか知ってる?", "はどこにありますか?",
)  # fmt: skip
TAILS_HELD_OUT = (
    "をご存じですか?", "を挙げてください。", "の名称は?", "を一つ答えて", "をお聞きしたいです。", "とは何?",
    "は何になりますか?", "を教えてほしい", "を教えてくれない?", "をこっそり教えて",
)  # fmt: skip
WHERE_HELD_OUT = (
    "はどちらですか?", "はどこだと思う?", "がどこか教えて", "はどこになるのでしょうか?",
)  # fmt: skip

_CAPITAL = (
    "{x} {a}", "{a} {x}", "どこが{x}の{a}ですか?", "{x}という国の{a}は?", "{x}の{a}の都市は?",
    "{x}で{a}といえばどこ?", "何という都市が{x}の{a}ですか?", "{x}は{a}がどこ?", "{a}は?{x}の",
)  # fmt: skip
_CAPITAL_HELD_OUT = ("{x}の{a}である都市は?", "{x}における{a}はどこ?", "{x}の{a}を都市名で答えて")
_GUESSES = (
    "は{c}?",
    "って{c}?",
    "は{c}ですか?",
    "は{c}だっけ?",
    "は{c}だよね?",
    "って{c}でしたっけ?",
    "は{c}で合ってる?",
    "って{c}かな?",
)
_CAPITAL_OF = (
    "{c}はどこの国の首都?", "{c}はどこの国の首都ですか?", "{c}が首都の国は?", "{c}を首都とする国は?",
    "首都が{c}の国は?", "首都が{c}なのはどこ?", "{c}はどの国の首都?", "{c}が首都なのはどこの国?",
    "{c}という首都の国は?", "{c}が首都である国を教えて", "{c}はどの国の首都でしょう?",
)  # fmt: skip
_CONTINENT = (
    "{x}はどの大陸?", "{x}は何大陸?", "{x}は何大陸にある?", "{x}は何大陸にありますか?", "{x}はどの大陸にある?",
    "{x}はどの大陸にありますか?", "{x}はどの大陸の国?", "{x}はどこの大陸の国ですか?", "{x}がある大陸は?",
    "{x}があるのはどの大陸?", "{x}はどの州の国?", "{x}は何州?", "{x}はどの地域の国ですか?", "{x}の大陸は?",
    "{x}の大陸を教えて", "{x}が属する大陸は?", "{x}の位置する大陸は?", "{x}はどこの大陸にあるの?",
    "{x}はどの大陸か教えてください。", "{x} 大陸", "{x}は世界のどの地域にある?",
    "{x}はどの大陸に位置しますか?", "{x}は何大陸の国でしょう?", "{x}が含まれる大陸はどこ?",
)  # fmt: skip
_REGION = (
    "{x}は何地方?", "{x}は何地方ですか?", "{x}は何地方にある?", "{x}は何地方にありますか?", "{x}はどの地方?",
    "{x}はどの地方ですか?", "{x}はどの地方にある?", "{x}がある地方は?", "{x}が属する地方は?", "{x}の地方は?",
    "{x}の地方を教えて", "{x}はどこの地方?", "{x}があるのは何地方?", "{x}は何地方の県?", "{x} 地方",
    "{x}が入るのは何地方?", "{x}は日本のどの地方?", "{x}は何地方か教えてください。", "{x}の属する地方を答えて",
    "{x}は何地方に含まれますか?", "{x}はどの地方に位置する?", "{x}は何地方になるの?",
)  # fmt: skip
_SEAT_OF = (
    "{c}が県庁所在地の県は?", "{c}はどこの県庁所在地?", "{c}はどの都道府県の県庁所在地ですか?",
    "県庁所在地が{c}なのは?", "{c}が県庁所在地なのはどこ?", "{c}を県庁所在地とする県は?",
    "{c}は何県の県庁所在地?", "{c}は何県?", "{c}は何県にある?", "{c}はどこの都道府県にありますか?",
    "県庁が{c}にあるのは?", "{c}に県庁がある県は?", "{c}は何県にありますか?", "{c}がある県はどこ?",
)  # fmt: skip

# Without 市, these would be prefectures or islands, or a single character.
_FULL_NAME_ONLY = {p.seat for p in PREFECTURES if p.seat[:-1] == p.short or len(p.seat) < 3} | {
    "新宿区"
}

SCOPES = {
    "日本": ("日本で", "日本で", "日本で", "日本の中で", "日本国内で", "国内で", "日本では", "日本の", "日本において"),
    "世界": ("世界で", "世界で", "世界で", "世界の中で", "世界中で", "地球上で", "世界では", "世界の", "地球で"),
    "ヨーロッパ": ("ヨーロッパで", "欧州で", "ヨーロッパの中で"),
    "北アメリカ": ("北アメリカで", "北米で", "北アメリカの中で", "北アメリカ大陸で"),
    "南アメリカ": ("南アメリカで", "南米で", "南アメリカの中で", "南アメリカ大陸で"),
    "アフリカ": ("アフリカで", "アフリカの中で", "アフリカ大陸で"),
    "アジア": ("アジアで", "アジアの中で"),
    **{region: (f"{region}で", f"{region}地方で", f"{region}の中で") for region in "東北 関東 中部 近畿 四国 九州".split()},
}  # fmt: skip
_SUPERLATIVE = (
    "{place}の{n}で{r}{a}のは?", "{place}の{n}で{r}{a}のは何?", "{n}で、{place}で{r}{a}のは?",
    "{r}{a}{n}は、{place}では何?", "{place}の{n}の中で{r}{a}のは何ですか?", "{place} {r}{a}{n}",
    "{r}{a}{place}の{n}は?", "{place}の{r}{a}{n}を知りたい",
    "{place}にある{n}のうち{r}{a}のは?", "{n}のうち、{place}で{r}{a}のはどれ?",
)  # fmt: skip
RANKS = {
    "一番": (
        "一番",
        "一番",
        "一番",
        "いちばん",
        "最も",
        "もっとも",
        "1番",
        "最高に",
        "ダントツで一番",
    ),
    "二番目に": ("二番目に", "2番目に", "二番めに", "2番めに"),
    "三番目に": ("三番目に", "3番目に", "三番めに", "3番めに"),
    "四番目に": ("四番目に", "4番目に"),
}


def is_held_out(*parts: str) -> bool:
    """True if this combination is held out for evaluation, which is one in eight."""
    return zlib.crc32("|".join(parts).encode()) % 8 == 0


def wording(
    rng: Random, split: Split, trained: Sequence[str], held_out: Sequence[str], *key: str
) -> str:
    """A wording for `key` from training, or one that training never uses with it."""
    if split == "held_out":
        kept = [form for form in trained if form and is_held_out(form, *key)]
        return rng.choice([*held_out, *rng.sample(kept, min(len(kept), len(held_out)))])
    return rng.choice([w for w in trained if not w or not is_held_out(w, *key)])


def last_held_out(wordings: Sequence[str], count: int) -> tuple[Sequence[str], Sequence[str]]:
    """The wordings for training, and the last `count`, which are held out."""
    return wordings[:-count], wordings[-count:]


def opened(rng: Random, split: Split, message: str) -> str:
    """The message, half the time after an opening."""
    if split == "held_out" and rng.random() < 0.3:
        return rng.choice(OPENINGS_HELD_OUT) + message
    return rng.choice(OPENINGS) + message


def blur(rng: Random, split: Split, message: str) -> str:
    """In training, add noise around some questions.

    Without it, the model learns to answer "I do not know" whenever it sees an unknown word.
    """
    chance = rng.random()
    if split == "held_out" or chance > 0.14:
        return message
    if chance < 0.04:
        return f"{noise(rng)}{rng.choice('、。')}{message}"
    return message.rstrip("?。") + noise(rng) + rng.choice(("?", "。", ""))


def others(rng: Random, values: Sequence[str], *mentioned: str) -> tuple[str, ...]:
    """A few wrong answers that neither contain nor are contained in what is mentioned."""
    text = "|".join(mentioned)
    pool = sorted({v for v in values if v not in text and not any(m in v for m in mentioned)})
    return tuple(rng.sample(pool, min(len(pool), 12)))


def _question(
    rng: Random, split: Split, topic: str, key: str, sentences: Sequence[str], *, where: bool
) -> str:
    """A question about `topic`: the topic with an ending, or one of the `sentences` about it."""
    if rng.random() < 0.25:
        return rng.choice(sentences)
    tails, tails_held_out = (
        (TAILS + WHERE, TAILS_HELD_OUT + WHERE_HELD_OUT) if where else (TAILS, TAILS_HELD_OUT)
    )
    return topic + wording(rng, split, tails, tails_held_out, key)


def spelling(rng: Random, country: str) -> str:
    """The usual name of a country, or three times in ten another, if it has one."""
    names = ALIASES.get(country, (country,))
    if rng.random() < 0.7:
        return country
    # 英国 has to be memorized, but フランス共和国 begins with the usual name.
    return rng.choices(names, [1 if country in name else 3 for name in names])[0]


def capital(rng: Random, split: Split, country: Country | None = None) -> QAPair:
    """The capital of a country; the answer has the usual name of the country."""
    x, c, _ = country or rng.choice(COUNTRIES)
    spelled = spelling(rng, x)
    a = "首都" if rng.random() < 0.93 else "しゅと"
    form = wording(rng, split, _CAPITAL, _CAPITAL_HELD_OUT, x)
    sentences = [form.format(x=spelled, a=a)]
    message = _question(rng, split, f"{spelled}の{a}", x, sentences, where=True)
    if split == "train" and rng.random() < 0.06:  # a guess, mostly a wrong one
        guess = rng.choice((rng.choice(COUNTRIES).capital, c))
        message = f"{spelled}の{a}{rng.choice(_GUESSES).format(c=guess)}"
    wrong = others(rng, [k.capital for k in COUNTRIES], x, c)
    return QAPair(
        "capital",
        blur(rng, split, opened(rng, split, message)),
        f"{x}の首都は{c}{{です}}",
        (c,),
        wrong,
        subject=x,
    )


def capital_of(rng: Random, split: Split) -> QAPair:
    """The country of a capital."""
    x, c, _ = rng.choice([k for k in COUNTRIES if k.name != k.capital])
    spelled = rng.choice([c, *CAPITAL_ALIASES.get(c, ())])
    message = wording(rng, split, *last_held_out(_CAPITAL_OF, 2), c).format(c=spelled)
    wrong = others(rng, [k.name for k in COUNTRIES], x, c)
    return QAPair(
        "capital",
        blur(rng, split, opened(rng, split, message)),
        f"{c}は{x}の首都{{です}}",
        (x,),
        wrong,
    )


def continent(rng: Random, split: Split, country: Country | None = None) -> QAPair:
    """The continent of a country."""
    x, _, place = country or rng.choice(COUNTRIES)
    form = wording(rng, split, *last_held_out(_CONTINENT, 3), x)
    message = form.format(x=spelling(rng, x))
    wrong = others(rng, [k.continent for k in COUNTRIES], x, place)
    return QAPair(
        "continent",
        blur(rng, split, opened(rng, split, message)),
        f"{x}は{place}の国{{です}}",
        (place,),
        wrong,
        subject=x,
    )


def seat(rng: Random, split: Split, prefecture: Prefecture | None = None) -> QAPair:
    """The seat of a prefecture's government."""
    p = prefecture or rng.choice(PREFECTURES)
    x = p.name if rng.random() < 0.7 else p.short
    a = rng.choices(("県庁所在地", p.seat_word, "県庁所在市", "県庁のある市"), (6, 4, 1, 1))[0]
    form = wording(rng, split, _CAPITAL, _CAPITAL_HELD_OUT, p.name)
    sentences = [form.replace("という国", "という県").format(x=x, a=a)]
    message = _question(rng, split, f"{x}の{a}", p.name, sentences, where=True)
    wrong = others(rng, [k.seat for k in PREFECTURES], p.name, p.seat, a)
    answer = f"{p.name}の{p.seat_word}は{p.seat}{{です}}"
    return QAPair(
        "seat",
        blur(rng, split, opened(rng, split, message)),
        answer,
        (p.seat,),
        wrong,
        subject=p.name,
    )


def seat_of(rng: Random, split: Split) -> QAPair:
    """The prefecture of a seat of government."""
    p = rng.choice(PREFECTURES)
    seat_name = p.seat if rng.random() < 0.6 or p.seat in _FULL_NAME_ONLY else p.seat[:-1]
    message = wording(rng, split, *last_held_out(_SEAT_OF, 2), p.seat).format(c=seat_name)
    wrong = others(rng, [k.name for k in PREFECTURES], p.name, p.seat)
    answer = f"{p.seat}は{p.name}の{p.seat_word}{{です}}"
    return QAPair("seat", blur(rng, split, opened(rng, split, message)), answer, (p.name,), wrong)


def region(rng: Random, split: Split, prefecture: Prefecture | None = None) -> QAPair:
    """The region of a prefecture."""
    p = prefecture or rng.choice(PREFECTURES)
    x = p.name if rng.random() < 0.75 else p.short
    message = wording(rng, split, *last_held_out(_REGION, 3), p.name).format(x=x)
    wrong = others(rng, [k.region for k in PREFECTURES], p.name, p.region)
    answer = f"{p.name}は{p.region}{{です}}"
    return QAPair(
        "region",
        blur(rng, split, opened(rng, split, message)),
        answer,
        (p.region,),
        wrong,
        subject=p.name,
    )


def superlative(rng: Random, split: Split, fact: Superlative | None = None) -> QAPair:
    """The highest, longest, largest, deepest, …"""
    s = fact or rng.choice(SUPERLATIVES)
    topics = [
        scope + rank + adjective + noun
        for scope in SCOPES.get(s.scope, (f"{s.scope}で", f"{s.scope}の中で"))
        for rank in RANKS[s.rank]
        for adjective in s.adjectives
        for noun in s.nouns
    ]
    if s.rank == "一番" and s.scope in ("日本", "世界"):
        topics += [f"{s.scope}一{a}{n}" for a in s.adjectives for n in s.nouns]
    if rng.random() < 0.15 and s.also:
        topic = rng.choice(s.also)
    else:
        plain = topics[0]
        kept = [t for t in topics if t == plain or is_held_out(t) == (split == "held_out")]
        topic = plain if rng.random() < 0.25 else rng.choice(kept)
    form = wording(rng, split, *last_held_out(_SUPERLATIVE, 2), s.canonical)
    sentence = form.format(
        place=s.scope,
        r=rng.choice(RANKS[s.rank]),
        a=rng.choice(s.adjectives),
        n=rng.choice(s.nouns),
    )
    message = _question(rng, split, topic, s.canonical, [sentence], where=True)
    rivals = [k.answers[0] for k in SUPERLATIVES if k.nouns[0] == s.nouns[0]]
    wrong = others(rng, rivals, *s.answers, *s.also, topic)
    answer = f"{s.canonical}は{s.answers[0]}{{です}}"
    return QAPair(
        "superlative",
        blur(rng, split, opened(rng, split, message)),
        answer,
        s.answers,
        wrong,
        subject=s.canonical,
    )


def _phrase(rng: Random, split: Split, talk: Talk) -> str:
    trained, held_out = last_held_out(talk.messages, 2)
    return rng.choice(held_out if split == "held_out" else trained)


def identity(rng: Random, split: Split) -> QAPair:
    """Who the model is, what it can do, and how to get the large model."""
    talk = rng.choice([*IDENTITY.values(), MAKER])
    message = opened(rng, "train", _phrase(rng, split, talk))
    return QAPair("identity", blur(rng, split, message), talk.answer, talk.right)


def name(rng: Random, split: Split, given: str | None) -> QAPair:
    """The name given by the role, or issun."""
    own = given or "issun"
    return QAPair("identity", _phrase(rng, split, NAME), NAME.answer.replace("{name}", own), (own,))


_CALLS = (
    "issun、{m}",
    "{m}、issun",
    "issunさん、{m}",
    "{m}、issunさん",
    "ねえ、{m}",
    "{m}ね",
    "あ、{m}",
    "はい、{m}",
    "いやあ、{m}",
)


def greeting(rng: Random, split: Split) -> QAPair:
    """A greeting, thanks or a remark, which is not a question."""
    talk = rng.choice(GREETINGS)
    message = _phrase(rng, split, talk)
    if split == "train" and rng.random() < 0.12:
        message = rng.choice(_CALLS).format(m=message)
    message += rng.choice(("", "", "!", "。", "!!", "〜"))
    return QAPair("smalltalk", message, talk.answer, talk.right, counts=False)


def chatter(rng: Random, split: Split) -> QAPair:
    """A question in small talk."""
    talk = rng.choice(CHATTER)
    return QAPair("smalltalk", _phrase(rng, split, talk), talk.answer, talk.right)


_GENERIC = (
    "質問に答えてください。", "次の質問に答えてください。", "次の問いに答えなさい。", "入力の質問に答えて",
    "次の質問に答えて", "以下の質問に答えてください。", "質問に答えなさい。", "次の問いに答えてください。",
    "以下の問いに回答してください。", "与えられた質問に答えて",
)  # fmt: skip
_OF_INPUT = {
    "capital": ("次の国の首都を答えて", "首都を教えてください。", "この国の首都は?", "入力された国の首都を答えなさい。", "次の国の首都はどこですか?", "国名を見て、首都を答えてください。"),
    "continent": ("次の国はどの大陸?", "この国がある大陸を答えて", "次の国の大陸を教えてください。", "入力の国は何大陸にありますか?", "国名を見て、大陸を答えて"),
    "seat": ("次の県の県庁所在地を答えて", "県庁所在地を教えてください。", "この県の県庁所在地は?", "次の都道府県の県庁所在地はどこですか?", "都道府県名を見て、県庁所在地を答えて"),
    "region": ("次の県は何地方?", "この県の地方を答えて", "次の都道府県の地方を教えてください。", "入力の県は何地方ですか?", "県名を見て、地方を答えて"),
}  # fmt: skip


def with_input(rng: Random, split: Split, ask: QAPair) -> QAPair:
    """The question in the format with an input; the last instruction of each list is held out."""
    forms: tuple[str, ...] = _GENERIC
    text = ask.message
    if ask.category in _OF_INPUT and ask.subject and rng.random() < 0.5:
        forms, text = _OF_INPUT[ask.category], ask.subject
    form = forms[-1] if split == "held_out" else rng.choice(forms[:-1])
    return replace(ask, message=form, input=text)
