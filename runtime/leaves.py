"""Values that a model writes as plain text: how each is asked for, and how it is read.

A model answers in sentences, `フランスの首都はパリです。`, and a small one goes wrong where it is
let write the value alone. So an answer may have a topic before the value and an ending behind it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from issun.runtime.constraint.following import is_number
from issun.runtime.constraint.plain import Plain
from issun.runtime.constraint.references import Place
from issun.runtime.errors import SamplingError

# A topic has one mark, at its end, so that a value must come soon.
_TOPIC = r"([^は、:=。\n]*[は:=]、?)?"
_ENDING = r"([^0-9.,。\n][^。\n]*)?[。.]?"
_SEPARATOR = r"(、|,|・|と|や)\s?"
_PART = r"[^、,・。\n]+"
_INTEGER = r"-?(0|[1-9][0-9]{0,14})"
_NUMBER = r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?"
_MOST_ENUMERATED = 101  # numbers of a range that are listed, and not checked afterwards
_MOST_ITEMS = 8  # of a list that has no bound
MOST_LISTED = 1000  # items of any list: no answer holds more
_MOST_ADDED = 40  # characters of a text that must have some and has no bound
_MOST_ECHO = 1000  # characters at the end of a question that an answer may repeat
_SENTENCE = 48  # characters and tokens of a sentence with its value
FORMATS = {
    "date": r"(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z",
    "email": r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20})?@[a-z0-9]{1,20}(\.[a-z]{2,6}){1,2}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1?[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[1-9]?[0-9])",
}
_LABELS = r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){1,3}"
FORMATS |= {
    "hostname": _LABELS,
    "uri": rf"https?://{_LABELS}(/[a-z0-9]{{1,20}}){{0,3}}",
    "ipv6": "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}",
    "duration": "P([1-9][0-9]{0,2}[YMWD]|T[1-9][0-9]{0,2}[HMS])",
}
FORMATS["date-time"] = f"{FORMATS['date']}T{FORMATS['time']}"
_BLANK = "なし"
_BLANKS = (_BLANK, "ありません", "null", "None", "")

# The echo of a question: `フランスの首都は?` in the prompt, `フランスの首都は…` in the answer.
_ASKED = re.compile(
    r"([^\n。、?？]+は)(?:[?？]|何|なに|なん|どこ|どれ|どの|誰|だれ|いつ|いくつ|いくら)"
)
_SAID = re.compile(
    r"(.*?は)、?([^。\n]+?)(?:なの)?(?:です|だ|である|でござる|や)[よねで]{0,2}[。.!！]?"
)
_QUOTES = {"「": "」", "『": "』", '"': '"', "“": "”"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer that a model is to write.

    `line` comes behind the user's text. The answer matches `pattern` as a whole, is JSON by
    what stands at `place` of the schema, or is free text where both are None; `most` tokens are
    enough for it.
    """

    line: str
    pattern: str | None = None
    place: Place | None = None
    most: int | None = None
    name: Place | None = None  # of the pattern, where it is the schema's
    path: Place = "#"  # of the value


Asking = Generator[Ask, str, Any]
Read = Callable[[str, str], Any]  # an answer and all that was asked -> a value; or UnusableError


class UnusableError(Exception):
    """An answer is no value; never leaves this module."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value: what is asked, and how the answer is read; `strict` is asked where that fails.

    `listable` values are told apart in a list, and none of them is asked for again.
    """

    ask: Ask
    read: Read
    strict: Ask | None = None
    hint: str = ""
    pattern: str | None = None  # of the value alone, without the sentence around it
    listable: bool = True

    @property
    def asks(self) -> list[Ask]:
        """All that may be asked."""
        return [self.ask] if self.strict is None else [self.ask, self.strict]

    def value(self, label: str, question: str) -> Asking:
        """Ask for the value called `label` behind `question`; gives it as JSON has it."""
        line = _line(label, self.hint)
        answer = yield replace(self.ask, line=line)
        try:
            return self.read(answer, f"{question[-_MOST_ECHO:]}\n{line}")
        except UnusableError:
            if self.strict is None:
                raise SamplingError(
                    "There is no value in the answer to {line!r}.", line=line
                ) from None
        answer = yield replace(self.strict, line=line)
        return json.loads(answer) if self.strict.place is not None else self.read(answer, "")


def placed(leaf: Leaf, path: Place) -> Leaf:
    """The same, for a value at `path` of the schema."""
    strict = leaf.strict and replace(leaf.strict, path=path)
    return replace(leaf, ask=replace(leaf.ask, path=path), strict=strict)


def one_of(values: Mapping[str, Any], hint: str = "") -> Leaf:
    """One of `values`, each by the text that a model writes for it."""
    longest_first = sorted(values, key=len, reverse=True)
    pattern = "(" + "|".join(map(re.escape, longest_first)) + ")"
    most = _SENTENCE + max(map(len, values))
    return replace(_in_sentence(pattern, lambda text, asked: values[text], most), hint=hint)


def number(plain: Plain, *, whole: bool) -> Leaf:
    """A number; one outside the bounds is asked for again by a grammar."""
    if whole and (values := _range(plain)):
        return one_of({str(value): value for value in values})

    def read(text: str, asked: str) -> Any:
        value = float(text) if "." in text else int(text)
        if not is_number(value, plain):
            raise UnusableError
        return value

    leaf = _in_sentence(_INTEGER if whole else _NUMBER, read)
    bounded = plain.multiples or any("imum" in name for name in plain.limits)
    return replace(leaf, strict=Ask("", place=plain.place)) if bounded else leaf


def text(least: int, most: int | None) -> Leaf:
    """Free text of `least` to `most` characters; one that is longer is cut."""

    def read(answer: str, asked: str) -> str:
        said = answer.strip()
        for found in (_tidy(said, asked), said, answer):
            if len(found) >= least:
                return found[:most]
        raise UnusableError

    bound = least + _MOST_ADDED if most is None else most
    strict = Ask("", rf"[^\n]{{{least},{bound}}}") if least else None
    return Leaf(Ask("", most=None if most is None else most + _SENTENCE), read, strict)


def matching(pattern: str, place: Place) -> Leaf:
    """Text that `pattern` matches: the whole answer, since a search for it might take for ever."""
    return Leaf(Ask("", pattern, name=place), lambda answer, asked: answer, listable=False)


def formed(name: str) -> Leaf:
    """Text of a format that `FORMATS` has."""
    return _in_sentence(FORMATS[name], lambda answer, asked: answer, 2 * _SENTENCE)


def by_grammar(place: Place) -> Leaf:
    """What has no fixed skeleton, as JSON that the model writes."""
    return Leaf(Ask("", place=place), lambda answer, asked: json.loads(answer), listable=False)


def several(item: Leaf, least: int, most: int | None, *, unique: bool) -> Leaf:
    """A list of what `item` reads, as people write one: 赤、青、黄."""
    limit = max(least, _MOST_ITEMS) if most is None else min(most, MOST_LISTED)
    repeated = f"{{{max(least, 1) - 1},{max(limit, 1) - 1}}}"
    part, between = (item.pattern, _SEPARATOR) if item.pattern else (_PART, "、")
    each = re.compile(part)
    pattern = f"({part})({between}({part})){repeated}"

    def read(answer: str, asked: str) -> list[Any]:
        said = None if item.pattern else _echoed(answer, asked)
        found: list[Any] = []
        for one in each.finditer(answer if said is None else said):
            value = item.read(one[0], asked)
            if not (unique and value in found):
                found.append(value)
        if len(found) < least:
            raise UnusableError
        return found[:limit]

    if item.pattern is None:
        return Leaf(Ask(""), read, Ask("", pattern) if least else None, listable=False)
    return replace(_in_sentence(pattern, read, None), listable=False)


def or_absent(leaf: Leaf, absent: Any) -> Leaf:
    """The same, but the model may say that there is none, which gives `absent`."""
    if leaf.ask.place is not None or (leaf.pattern is None and leaf.ask.pattern is not None):
        return leaf

    def read(answer: str, asked: str) -> Any:
        said = answer.strip().rstrip("。.").removesuffix("です")
        return absent if said in _BLANKS else leaf.read(answer, asked)

    pattern = leaf.ask.pattern
    ask = (
        leaf.ask if pattern is None else replace(leaf.ask, pattern=f"{pattern}|{_BLANK}(です)?。?")
    )
    return replace(leaf, ask=ask, read=read)


def _in_sentence(pattern: str, read: Read, most: int | None = _SENTENCE) -> Leaf:
    """A value that `pattern` matches, with a topic before it or an ending behind it, or without."""
    whole = re.compile(f"{_TOPIC}(?P<value>{pattern}){_ENDING}", re.DOTALL)

    def find(answer: str, asked: str) -> Any:
        found = whole.fullmatch(answer.strip())
        if not found:
            raise UnusableError
        return read(found["value"], asked)

    return Leaf(Ask("", f"{_TOPIC}({pattern}){_ENDING}", most=most), find, pattern=pattern)


def _line(label: str, hint: str) -> str:
    if not label:
        return hint
    whole = label.endswith(("?", "？", "。", ".", "か", "さい"))
    return (label if whole else f"{label}は?") + hint


def _range(plain: Plain) -> Sequence[int]:
    """The whole numbers within the bounds, where these are few; none otherwise."""
    (low, _), (high, _) = plain.low(), plain.high()
    if low is None or high is None or high - low >= _MOST_ENUMERATED:
        return []
    return [n for n in range(math.floor(low), math.ceil(high) + 1) if is_number(n, plain)]


def _tidy(answer: str, asked: str) -> str:
    """The value alone where the answer is a sentence that repeats the question, or quotes it."""
    said = _echoed(answer, asked)
    value = answer if said is None or "、" in said else said
    closing = _QUOTES.get(value[:1])
    if closing and len(value) > 1 and value.find(closing, 1) == len(value) - 1:
        return value[1:-1]
    return value


def _echoed(answer: str, asked: str) -> str | None:
    """What the answer says of the topic that was asked for; None where it speaks of another."""
    said = _SAID.fullmatch(answer)
    if not said:
        return None
    topics = _ASKED.findall(asked)
    return said[2] if any(said[1].endswith(t) or t.endswith(said[1]) for t in topics) else None
