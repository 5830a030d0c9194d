"""Generates sums, differences and products of small numbers, in signs and in words."""

from __future__ import annotations

import zlib
from random import Random

from issun.training.embedded.questions import QAPair
from issun.training.embedded.styles import Split

LARGEST_TERM, LARGEST_FACTOR = 30, 9  # the range that the model is trained on, from 0

_SUMS = (
    "{s}は?", "{s}は?", "{s}", "{s}=", "{s}=?", "{s}は", "{s}はいくつ?", "{s}はいくつですか?", "{s}の答えは?",
    "{s}を計算して", "{s}を計算してください。", "{s}は何?", "{s}は何ですか?", "{s}の答えを教えて", "{s}って何?",
    "計算して。{s}", "次の計算をして。{s}", "{s}はいくら?", "{s}の計算結果は?", "{s}を教えて", "{s}はいくつになる?",
    "じゃあ{s}は?", "では{s}は?", "{s}っていくつ?", "{s}はいくつになりますか?", "{s}はいくつかな?", "{s}わかる?",
    "{s}を解いて", "{s}の結果を教えてください。", "{s}はいくつでしょう?",
)  # fmt: skip
_SIGNS = {
    "+": ("+", "+", "足す", "たす", "プラス"),
    "-": ("-", "-", "引く", "ひく", "マイナス"),
    "×": ("×", "×", "かける", "掛ける", "*", "x"),
}
# Whole sentences; {a} is the first number of the answer.
_SENTENCES = {
    "+": ("{a}に{b}を{足す}", "{a}と{b}を{足す}", "{a}と{b}の合計", "{a}と{b}の和", "{a}に{b}を加える", "{a}個と{b}個で何個?", "{a}より{b}大きい数"),
    "-": ("{a}から{b}を{引く}", "{a}から{b}{引く}", "{a}と{b}の差", "{a}個から{b}個取ると何個?", "{a}から{b}を取る", "{a}より{b}小さい数"),
    "×": ("{a}に{b}を{かける}", "{a}と{b}を{かける}", "{a}の{b}倍", "{a}と{b}の積", "{a}個が{b}組で何個?", "{a}が{b}つ", "{a}を{b}倍する"),
}  # fmt: skip
# Two spellings, and the stem before たら.
_VERBS = {
    "足す": ("足す", "たす", "足し"),
    "引く": ("引く", "ひく", "引い"),
    "かける": ("かける", "掛ける", "かけ"),
}
_THEN = (
    "と?", "といくつ?", "といくつですか?", "といくつになる?", "と何になる?", "といくつになりますか?", "と", "と何?", "とどうなる?",
)  # fmt: skip
_IF = (
    "たら?", "たらいくつ?", "たら何?", "たらいくつになる?", "たらいくつになりますか?", "たらどうなる?",
)  # fmt: skip
_NOUN = (
    "は?", "はいくつ?", "は何?", "はいくつですか?", "を教えて", "っていくつ?", "はいくつになる?",
)  # fmt: skip

_KANJI = "〇一二三四五六七八九"


def kanji_number(number: int) -> str:
    """A number below 100 in kanji: 二十三."""
    tens, ones = divmod(number, 10)
    if not tens:
        return _KANJI[ones] if ones else "ゼロ"
    return (_KANJI[tens] if tens > 1 else "") + "十" + (_KANJI[ones] if ones else "")


def is_held_out_sum(a: int, sign: str, b: int) -> bool:
    """True for one sum or difference in eight; the rest, and the rules for 0, are memorized."""
    return sign != "×" and 0 not in (a, b) and zlib.crc32(f"{a}{sign}{b}".encode()) % 8 == 0


def arithmetic(rng: Random, split: Split) -> QAPair:
    """A sum, difference or product of small numbers; one sum or difference in eight is held out."""
    while True:
        sign = rng.choices("+-×", (5, 4, 3))[0]
        top = LARGEST_FACTOR if sign == "×" else rng.choice((9, 20, LARGEST_TERM))
        low = 0 if rng.random() < 0.3 else 1
        a, b = rng.randint(low, top), rng.randint(low, top)
        if low == 0 and rng.random() < 0.5:  # with zero, and a difference of zero
            a, b = rng.choice(((a, 0), (0, a), (a, a))) if sign != "-" else (a, rng.choice((0, a)))
        if sign == "-":
            a, b = max(a, b), min(a, b)
        memorized = sign == "×" or 0 in (a, b)
        if memorized or is_held_out_sum(a, sign, b) == (split == "held_out"):
            break
    return asked(rng, split, a, sign, b)


def asked(rng: Random, split: Split, a: int, sign: str, b: int, *, message: str = "") -> QAPair:
    """The question with these numbers in a random wording, or as `message`."""
    result = {"+": a + b, "-": a - b, "×": a * b}[sign]
    spell = kanji_number if rng.random() < 0.12 else str
    message = message or worded(rng, split, spell(a), sign, spell(b))
    right = tuple(f"は{result}{end}" for end in ("で", "な", "や", "だ"))
    expression = f"{a}{sign}{b}"
    return QAPair(
        "arithmetic", message, f"{expression}は{result}{{です}}", right, subject=expression
    )


def worded(rng: Random, split: Split, a: str, sign: str, b: str) -> str:
    """A question for `a + b`, `a - b` or `a × b`, three times in four with a sign."""
    return (_sentence if rng.random() < 0.25 else _expression)(rng, split, a, sign, b)


def _expression(rng: Random, split: Split, a: str, sign: str, b: str) -> str:
    word = rng.choice(_SIGNS[sign])
    if not a.isdecimal() and rng.random() < 0.8:  # kanji mostly come with words
        word = rng.choice(_SIGNS[sign][2:4])
    space = " " if rng.random() < 0.08 else ""
    forms = _SUMS[-3:] if split == "held_out" and rng.random() < 0.5 else _SUMS[:-3]
    return rng.choice(forms).format(s=f"{a}{space}{word}{space}{b}")


def _sentence(rng: Random, split: Split, a: str, sign: str, b: str) -> str:
    form = rng.choice(_SENTENCES[sign])
    ends: tuple[str, ...]
    for verb, spellings in _VERBS.items():
        if f"{{{verb}}}" in form:
            said = rng.choice(spellings)
            ends = _IF if said == spellings[-1] else _THEN
            return form.format(a=a, b=b, **{verb: said}) + rng.choice(ends)
    if form.endswith("?"):
        return form.format(a=a, b=b)
    ends = _THEN if form.endswith(("る", "す")) else _NOUN
    return form.format(a=a, b=b) + rng.choice(ends)
