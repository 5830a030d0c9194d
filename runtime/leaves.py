"""Leaf values of a JSON answer: how the model is asked for each, and how its reply is parsed.

A model replies in sentences, such as `フランスの首都はパリです。`, and a small one makes mistakes
if it may only write the value. A reply may therefore have a topic before the value and an ending
after it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from issun.runtime.constraint.flat_schema import FlatSchema
from issun.runtime.constraint.references import Place
from issun.runtime.constraint.validation import is_valid_number
from issun.runtime.errors import SamplingError

# A topic has one delimiter, at its end, so that the value must come soon.
_TOPIC = r"([^は、:=。\n]*[は:=]、?)?"
_ENDING = r"([^0-9.,。\n][^。\n]*)?[。.]?"
_SEPARATOR = r"(、|,|・|と|や)\s?"
_PART = r"[^、,・。\n]+"
_INTEGER = r"-?(0|[1-9][0-9]{0,14})"
_NUMBER = r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?"
_MAX_ENUMERATED = 101  # integers of a range that are enumerated instead of checked
_MAX_ITEMS = 8  # of an array without maxItems
_MAX_ADDED = 40  # characters beyond minLength, without maxLength
_MAX_ECHO = 1000  # characters at the end of the user's text that a reply may repeat
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

# A reply may repeat the question: `フランスの首都は?` is answered by `フランスの首都は…`.
_TOPICS = re.compile(
    r"([^\n。、?？]+は)(?:[?？]|何|なに|なん|どこ|どれ|どの|誰|だれ|いつ|いくつ|いくら)"
)
_STATEMENT = re.compile(
    r"(.*?は)、?([^。\n]+?)(?:なの)?(?:です|だ|である|でござる|や)[よねで]{0,2}[。.!！]?"
)
_QUOTES = {"「": "」", "『": "』", '"': '"', "“": "”"}


@dataclass(frozen=True, slots=True)
class Query:
    """One reply that the model is to write.

    `line` is appended to the user's text. The reply must match `pattern` as a whole, or be JSON
    that follows the schema at `place`; it is free text if both are None. `most` tokens are enough
    for it.
    """

    line: str
    pattern: str | None = None
    place: Place | None = None
    most: int | None = None
    name: Place | None = None  # the place of `pattern`, if it is from the schema
    path: Place = "#"  # the place of the value


QuerySteps = Generator[Query, str, Any]
Parse = Callable[[str, str], Any]  # (reply, question) -> a value; raises UnusableError


class UnusableError(Exception):
    """A reply has no valid value; never leaves this module."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value: what to ask and how to parse the reply; `fallback` is asked if parsing fails.

    `listable` values can be separated in a list and never need a second query.
    """

    query: Query
    parse: Parse
    fallback: Query | None = None
    hint: str = ""
    pattern: str | None = None  # of the value alone, without the sentence around it
    listable: bool = True

    @property
    def queries(self) -> list[Query]:
        """All queries that may be asked."""
        return [self.query] if self.fallback is None else [self.query, self.fallback]

    def value(self, label: str, question: str) -> QuerySteps:
        """Ask for the value called `label` after `question`; return it as a JSON value."""
        line = _line(label, self.hint)
        answer = yield replace(self.query, line=line)
        try:
            return self.parse(answer, f"{question[-_MAX_ECHO:]}\n{line}")
        except UnusableError:
            if self.fallback is None:
                raise SamplingError(
                    "There is no value in the answer to {line!r}.", line=line
                ) from None
        answer = yield replace(self.fallback, line=line)
        return json.loads(answer) if self.fallback.place is not None else self.parse(answer, "")


def at_path(leaf: Leaf, path: Place) -> Leaf:
    """Return the leaf for a value at `path` of the schema."""
    fallback = leaf.fallback and replace(leaf.fallback, path=path)
    return replace(leaf, query=replace(leaf.query, path=path), fallback=fallback)


def one_of(values: Mapping[str, Any], hint: str = "") -> Leaf:
    """One of `values`, keyed by the text that the model writes for each."""
    longest_first = sorted(values, key=len, reverse=True)
    pattern = "(" + "|".join(map(re.escape, longest_first)) + ")"
    most = _SENTENCE + max(map(len, values))
    return replace(_in_sentence(pattern, lambda text, question: values[text], most), hint=hint)


def number(flat: FlatSchema, *, whole: bool) -> Leaf:
    """A number; if it is out of bounds, it is asked for again with a grammar."""
    if whole and (values := _range(flat)):
        return one_of({str(value): value for value in values})

    def parse(text: str, question: str) -> Any:
        value = float(text) if "." in text else int(text)
        if not is_valid_number(value, flat):
            raise UnusableError
        return value

    leaf = _in_sentence(_INTEGER if whole else _NUMBER, parse)
    bounded = flat.multiples or any("imum" in name for name in flat.limits)
    return replace(leaf, fallback=Query("", place=flat.place)) if bounded else leaf


def text(least: int, most: int | None) -> Leaf:
    """Free text of `least` to `most` characters; a longer one is truncated."""

    def parse(answer: str, question: str) -> str:
        reply = answer.strip()
        for found in (_tidy(reply, question), reply, answer):
            if len(found) >= least:
                return found[:most]
        raise UnusableError

    limit = least + _MAX_ADDED if most is None else most
    fallback = Query("", rf"[^\n]{{{least},{limit}}}") if least else None
    return Leaf(Query("", most=None if most is None else most + _SENTENCE), parse, fallback)


def with_pattern(pattern: str, place: Place) -> Leaf:
    """Text that matches `pattern` as a whole; searching for a match could take exponential time."""
    return Leaf(Query("", pattern, name=place), lambda answer, question: answer, listable=False)


def with_format(name: str) -> Leaf:
    """Text of a format in `FORMATS`."""
    return _in_sentence(FORMATS[name], lambda answer, question: answer, 2 * _SENTENCE)


def json_value(place: Place) -> Leaf:
    """JSON that the model writes by the grammar of the schema at `place`."""
    return Leaf(Query("", place=place), lambda answer, question: json.loads(answer), listable=False)


def list_of(item: Leaf, least: int, most: int | None, *, unique: bool) -> Leaf:
    """A list of `item` values as people write one: 赤、青、黄."""
    limit = max(least, _MAX_ITEMS) if most is None else most
    repeated = f"{{{max(least, 1) - 1},{max(limit, 1) - 1}}}"
    part, between = (item.pattern, _SEPARATOR) if item.pattern else (_PART, "、")
    each = re.compile(part)
    pattern = f"({part})({between}({part})){repeated}"

    def parse(answer: str, question: str) -> list[Any]:
        reply = None if item.pattern else _echoed(answer, question)
        found: list[Any] = []
        for one in each.finditer(answer if reply is None else reply):
            value = item.parse(one[0], question)
            if not (unique and value in found):
                found.append(value)
        if len(found) < least:
            raise UnusableError
        return found[:limit]

    if item.pattern is None:
        return Leaf(Query(""), parse, Query("", pattern) if least else None, listable=False)
    return replace(_in_sentence(pattern, parse, None), listable=False)


def optional(leaf: Leaf, absent: Any) -> Leaf:
    """The same leaf, but the model may answer that there is none, which gives `absent`."""
    if leaf.query.place is not None or (leaf.pattern is None and leaf.query.pattern is not None):
        return leaf

    def parse(answer: str, question: str) -> Any:
        reply = answer.strip().rstrip("。.").removesuffix("です")
        return absent if reply in _BLANKS else leaf.parse(answer, question)

    pattern = leaf.query.pattern
    query = (
        leaf.query
        if pattern is None
        else replace(leaf.query, pattern=f"{pattern}|{_BLANK}(です)?。?")
    )
    return replace(leaf, query=query, parse=parse)


def _in_sentence(pattern: str, parse: Parse, most: int | None = _SENTENCE) -> Leaf:
    """A value that matches `pattern`, with an optional topic before it and ending after it."""
    whole = re.compile(f"{_TOPIC}(?P<value>{pattern}){_ENDING}", re.DOTALL)

    def find(answer: str, question: str) -> Any:
        found = whole.fullmatch(answer.strip())
        if not found:
            raise UnusableError
        return parse(found["value"], question)

    return Leaf(Query("", f"{_TOPIC}({pattern}){_ENDING}", most=most), find, pattern=pattern)


def _line(label: str, hint: str) -> str:
    if not label:
        return hint
    whole = label.endswith(("?", "？", "。", ".", "か", "さい"))
    return (label if whole else f"{label}は?") + hint


def _range(flat: FlatSchema) -> Sequence[int]:
    """Return the integers within the bounds if there are few, otherwise an empty list."""
    (low, _), (high, _) = flat.low(), flat.high()
    if low is None or high is None or high - low >= _MAX_ENUMERATED:
        return []
    return [n for n in range(math.floor(low), math.ceil(high) + 1) if is_valid_number(n, flat)]


def _tidy(answer: str, question: str) -> str:
    """Strip the repeated question, or quotes, from a reply that consists of the value and these."""
    reply = _echoed(answer, question)
    value = answer if reply is None or "、" in reply else reply
    closing = _QUOTES.get(value[:1])
    if closing and len(value) > 1 and value.find(closing, 1) == len(value) - 1:
        return value[1:-1]
    return value


def _echoed(answer: str, question: str) -> str | None:
    """Return what the reply states about the topic asked for; None if it has another topic."""
    reply = _STATEMENT.fullmatch(answer)
    if not reply:
        return None
    topics = _TOPICS.findall(question)
    return reply[2] if any(reply[1].endswith(t) or t.endswith(reply[1]) for t in topics) else None
