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

from issun.training.embedded.facts import (
    COUNTRIES,
    PREFECTURES,
    SUPERLATIVES,
    Country,
    Prefecture,
    Superlative,
)
from issun.training.embedded.invented import invented_noun, invented_word, noise
from issun.training.embedded.smalltalk import (
    ATTRIBUTES,
    ATTRIBUTES_HELD_OUT,
    CHATTER,
    GREETINGS,
    IDENTITY,
    NAME,
    NOT_PLACES,
    ODD_SUPERLATIVES,
    TOPIC_FORMS,
    TOPIC_FORMS_HELD_OUT,
    TOPICS,
    TOPICS_HELD_OUT,
    UNKNOWN,
    UNKNOWN_RIGHT,
    Talk,
)
from issun.training.embedded.styles import Split


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
    "はどちらですか?",
    "はどこだと思う?",
    "がどこか教えて",
    "はどこになるのでしょうか?",
)

_CAPITAL = (
    "{x} {a}", "{a} {x}", "どこが{x}の{a}ですか?", "{x}という国の{a}は?", "{x}の{a}の都市は?",
    "{x}で{a}といえばどこ?", "何という都市が{x}の{a}ですか?", "{x}は{a}がどこ?", "{a}は?{x}の",
)  # fmt: skip
_CAPITAL_HELD_OUT = ("{x}の{a}である都市は?", "{x}における{a}はどこ?", "{x}の{a}を都市名で答えて")
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

_SCOPES = {
    "日本": ("日本で", "日本で", "日本で", "日本の中で", "日本国内で", "国内で", "日本では", "日本の", "日本において"),
    "世界": ("世界で", "世界で", "世界で", "世界の中で", "世界中で", "地球上で", "世界では", "世界の", "地球で"),
}  # fmt: skip
_SUPERLATIVE = (
    "{place}の{n}で{r}{a}のは?", "{place}の{n}で{r}{a}のは何?", "{n}で、{place}で{r}{a}のは?",
    "{r}{a}{n}は、{place}では何?", "{place}の{n}の中で{r}{a}のは何ですか?", "{place} {r}{a}{n}",
    "{r}{a}{place}の{n}は?", "{place}の{r}{a}{n}を知りたい",
    "{place}にある{n}のうち{r}{a}のは?", "{n}のうち、{place}で{r}{a}のはどれ?",
)  # fmt: skip
_RANKS = {
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
}


def is_held_out(*parts: str) -> bool:
    """True if this combination is held out for evaluation, which is one in eight."""
    return zlib.crc32("|".join(parts).encode()) % 8 == 0


def _wording(
    rng: Random, split: Split, trained: Sequence[str], held_out: Sequence[str], *key: str
) -> str:
    """A wording for `key` from training, or one that training never uses with it."""
    if split == "held_out":
        kept = [wording for wording in trained if wording and is_held_out(wording, *key)]
        return rng.choice([*held_out, *rng.sample(kept, min(len(kept), len(held_out)))])
    return rng.choice([w for w in trained if not w or not is_held_out(w, *key)])


def _last(wordings: Sequence[str], count: int) -> tuple[Sequence[str], Sequence[str]]:
    return wordings[:-count], wordings[-count:]


def _open(rng: Random, split: Split, message: str) -> str:
    if split == "held_out" and rng.random() < 0.3:
        return rng.choice(OPENINGS_HELD_OUT) + message
    return rng.choice(OPENINGS) + message


def _blur(rng: Random, split: Split, message: str) -> str:
    """In training, add noise around some questions.

    Without it, the model learns to answer "I do not know" whenever it sees an unknown word.
    """
    chance = rng.random()
    if split == "held_out" or chance > 0.14:
        return message
    if chance < 0.04:
        return f"{noise(rng)}{rng.choice('、。')}{message}"
    return message.rstrip("?。") + noise(rng) + rng.choice(("?", "。", ""))


def _others(rng: Random, values: Sequence[str], *mentioned: str) -> tuple[str, ...]:
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
    return topic + _wording(rng, split, tails, tails_held_out, key)


def capital(rng: Random, split: Split, country: Country | None = None) -> QAPair:
    """The capital of a country."""
    x, c, _ = country or rng.choice(COUNTRIES)
    a = "首都" if rng.random() < 0.93 else "しゅと"
    form = _wording(rng, split, _CAPITAL, _CAPITAL_HELD_OUT, x)
    message = _question(rng, split, f"{x}の{a}", x, [form.format(x=x, a=a)], where=True)
    wrong = _others(rng, [k.capital for k in COUNTRIES], x, c)
    return QAPair(
        "capital",
        _blur(rng, split, _open(rng, split, message)),
        f"{x}の首都は{c}{{です}}",
        (c,),
        wrong,
        subject=x,
    )


def capital_of(rng: Random, split: Split) -> QAPair:
    """The country of a capital."""
    x, c, _ = rng.choice([k for k in COUNTRIES if k.name != k.capital])
    message = _wording(rng, split, *_last(_CAPITAL_OF, 2), c).format(c=c)
    wrong = _others(rng, [k.name for k in COUNTRIES], x, c)
    return QAPair(
        "capital",
        _blur(rng, split, _open(rng, split, message)),
        f"{c}は{x}の首都{{です}}",
        (x,),
        wrong,
    )


def continent(rng: Random, split: Split, country: Country | None = None) -> QAPair:
    """The continent of a country."""
    x, _, place = country or rng.choice(COUNTRIES)
    message = _wording(rng, split, *_last(_CONTINENT, 3), x).format(x=x)
    wrong = _others(rng, [k.continent for k in COUNTRIES], x, place)
    return QAPair(
        "continent",
        _blur(rng, split, _open(rng, split, message)),
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
    form = _wording(rng, split, _CAPITAL, _CAPITAL_HELD_OUT, p.name)
    sentences = [form.replace("という国", "という県").format(x=x, a=a)]
    message = _question(rng, split, f"{x}の{a}", p.name, sentences, where=True)
    wrong = _others(rng, [k.seat for k in PREFECTURES], p.name, p.seat, a)
    answer = f"{p.name}の{p.seat_word}は{p.seat}{{です}}"
    return QAPair(
        "seat",
        _blur(rng, split, _open(rng, split, message)),
        answer,
        (p.seat,),
        wrong,
        subject=p.name,
    )


def seat_of(rng: Random, split: Split) -> QAPair:
    """The prefecture of a seat of government."""
    p = rng.choice(PREFECTURES)
    message = _wording(rng, split, *_last(_SEAT_OF, 2), p.seat).format(c=p.seat)
    wrong = _others(rng, [k.name for k in PREFECTURES], p.name, p.seat)
    answer = f"{p.seat}は{p.name}の{p.seat_word}{{です}}"
    return QAPair("seat", _blur(rng, split, _open(rng, split, message)), answer, (p.name,), wrong)


def region(rng: Random, split: Split, prefecture: Prefecture | None = None) -> QAPair:
    """The region of a prefecture."""
    p = prefecture or rng.choice(PREFECTURES)
    x = p.name if rng.random() < 0.75 else p.short
    message = _wording(rng, split, *_last(_REGION, 3), p.name).format(x=x)
    wrong = _others(rng, [k.region for k in PREFECTURES], p.name, p.region)
    answer = f"{p.name}は{p.region}{{です}}"
    return QAPair(
        "region",
        _blur(rng, split, _open(rng, split, message)),
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
        for scope in _SCOPES.get(s.scope, (f"{s.scope}で", f"{s.scope}の中で"))
        for rank in _RANKS[s.rank]
        for adjective in s.adjectives
        for noun in s.nouns
    ]
    if s.rank == "一番" and s.scope in _SCOPES:
        topics += [f"{s.scope}一{a}{n}" for a in s.adjectives for n in s.nouns]
    if rng.random() < 0.15 and s.also:
        topic = rng.choice(s.also)
    else:
        plain = topics[0]
        kept = [t for t in topics if t == plain or is_held_out(t) == (split == "held_out")]
        topic = plain if rng.random() < 0.25 else rng.choice(kept)
    form = _wording(rng, split, *_last(_SUPERLATIVE, 2), s.canonical)
    sentence = form.format(
        place=s.scope,
        r=rng.choice(_RANKS[s.rank]),
        a=rng.choice(s.adjectives),
        n=rng.choice(s.nouns),
    )
    message = _question(rng, split, topic, s.canonical, [sentence], where=True)
    rivals = [k.answers[0] for k in SUPERLATIVES if k.nouns[0] == s.nouns[0]]
    wrong = _others(rng, rivals, *s.answers, *s.also, topic)
    answer = f"{s.canonical}は{s.answers[0]}{{です}}"
    return QAPair(
        "superlative", _blur(rng, split, _open(rng, split, message)), answer, s.answers, wrong
    )


def _phrase(rng: Random, split: Split, talk: Talk) -> str:
    trained, held_out = _last(talk.messages, 2)
    return rng.choice(held_out if split == "held_out" else trained)


def identity(rng: Random, split: Split) -> QAPair:
    """Who the model is, what it can do, and how to get the large model."""
    talk = rng.choice(list(IDENTITY.values()))
    message = _open(rng, "train", _phrase(rng, split, talk))
    return QAPair("identity", _blur(rng, split, message), talk.answer, talk.right)


def name(rng: Random, split: Split, given: str | None) -> QAPair:
    """The name given by the role, or issun."""
    own = given or "issun"
    return QAPair("identity", _phrase(rng, split, NAME), NAME.answer.replace("{name}", own), (own,))


def greeting(rng: Random, split: Split) -> QAPair:
    """A greeting, thanks or a remark, which is not a question."""
    talk = rng.choice(GREETINGS)
    message = _phrase(rng, split, talk) + rng.choice(("", "", "!", "。", "!!", "〜"))
    return QAPair("smalltalk", message, talk.answer, talk.right, counts=False)


def chatter(rng: Random, split: Split) -> QAPair:
    """A question in small talk."""
    talk = rng.choice(CHATTER)
    return QAPair("smalltalk", _phrase(rng, split, talk), talk.answer, talk.right)


def unknown(rng: Random, split: Split) -> QAPair:
    """A question to which the model must answer that it does not know."""
    held_out = split == "held_out"
    kind = rng.random()
    if kind < 0.5:
        topic = rng.choice(TOPICS_HELD_OUT if held_out else TOPICS)
        if not held_out and rng.random() < 0.5:
            topic = invented_word(rng)
        form = rng.choice(TOPIC_FORMS_HELD_OUT if held_out and rng.random() < 0.5 else TOPIC_FORMS)
        message = form.format(x=topic)
    elif kind < 0.7:
        place = rng.choice([*[c.name for c in COUNTRIES], *[p.name for p in PREFECTURES]])
        attribute = rng.choice(ATTRIBUTES_HELD_OUT if held_out else ATTRIBUTES)
        if not held_out and rng.random() < 0.4:
            attribute = invented_noun(rng)
        message = f"{place}の{attribute}"
        message += _wording(rng, split, TAILS, TAILS_HELD_OUT, place)
    elif kind < 0.85:
        place = invented_word(rng) if held_out or rng.random() < 0.8 else rng.choice(NOT_PLACES)
        message = f"{place}の{rng.choice(('首都', '首都', '県庁所在地'))}"
        message += _wording(rng, split, TAILS + WHERE, TAILS_HELD_OUT + WHERE_HELD_OUT, "")
    else:
        odd = rng.choice(ODD_SUPERLATIVES[-4:] if held_out else ODD_SUPERLATIVES[:-4])
        if not held_out and rng.random() < 0.6:
            adjective = rng.choice(rng.choice(SUPERLATIVES).adjectives)
            odd = adjective + (invented_noun(rng) if rng.random() < 0.5 else rng.choice(TOPICS))
        scope = rng.choice(_SCOPES[rng.choice(("日本", "世界"))])
        message = f"{scope}{rng.choice(_RANKS['一番'])}{odd}"
        message += _wording(rng, split, TAILS, TAILS_HELD_OUT, odd)
    return QAPair("unknown", _blur(rng, split, _open(rng, split, message)), UNKNOWN, UNKNOWN_RIGHT)


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
    if ask.subject and rng.random() < 0.5:
        forms, text = _OF_INPUT[ask.category], ask.subject
    form = forms[-1] if split == "held_out" else rng.choice(forms[:-1])
    return replace(ask, message=form, input=text)
