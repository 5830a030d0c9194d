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
MAX_LISTED = 1000  # items of any list: no answer is longer
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
    that follows the schema at `place`; it is free text if both are None. It needs at most
    `max_tokens`.
    """

    line: str
    pattern: str | None = None
    place: Place | None = None
    max_tokens: int | None = None
    pattern_place: Place | None = None  # if `pattern` is from the schema
    value_place: Place = "#"


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
        reply = yield replace(self.query, line=line)
        try:
            return self.parse(reply, f"{question[-_MAX_ECHO:]}\n{line}")
        except UnusableError:
            if self.fallback is None:
                raise SamplingError(
                    "The reply to {line!r} contains no valid value.", line=line
                ) from None
        reply = yield replace(self.fallback, line=line)
        return json.loads(reply) if self.fallback.place is not None else self.parse(reply, "")


def at_place(leaf: Leaf, place: Place) -> Leaf:
    """Return the leaf for a value at `place` of the schema."""
    fallback = leaf.fallback and replace(leaf.fallback, value_place=place)
    return replace(leaf, query=replace(leaf.query, value_place=place), fallback=fallback)


def one_of(values: Mapping[str, Any], hint: str = "") -> Leaf:
    """One of `values`, keyed by the text that the model writes for each."""
    longest_first = sorted(values, key=len, reverse=True)
    pattern = "(" + "|".join(map(re.escape, longest_first)) + ")"
    max_tokens = _SENTENCE + max(map(len, values))
    leaf = _in_sentence(pattern, lambda text, question: values[text], max_tokens)
    return replace(leaf, hint=hint)


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


def text(min_length: int, max_length: int | None) -> Leaf:
    """Free text of `min_length` to `max_length` characters; a longer one is truncated."""

    def parse(reply: str, question: str) -> str:
        stripped = reply.strip()
        for value in (_tidy(stripped, question), stripped, reply):
            if len(value) >= min_length:
                return value[:max_length]
        raise UnusableError

    limit = min_length + _MAX_ADDED if max_length is None else max_length
    fallback = Query("", rf"[^\n]{{{min_length},{limit}}}") if min_length else None
    max_tokens = None if max_length is None else max_length + _SENTENCE
    return Leaf(Query("", max_tokens=max_tokens), parse, fallback)


def with_pattern(pattern: str, place: Place) -> Leaf:
    """Text that matches `pattern` as a whole; searching for a match could take exponential time."""
    query = Query("", pattern, pattern_place=place)
    return Leaf(query, lambda reply, question: reply, listable=False)


def with_format(name: str) -> Leaf:
    """Text of a format in `FORMATS`."""
    return _in_sentence(FORMATS[name], lambda reply, question: reply, 2 * _SENTENCE)


def json_value(place: Place) -> Leaf:
    """JSON that the model writes by the grammar of the schema at `place`."""
    return Leaf(Query("", place=place), lambda reply, question: json.loads(reply), listable=False)


def list_of(item: Leaf, min_items: int, max_items: int | None, *, unique: bool) -> Leaf:
    """A list of `item` values as people write one: 赤、青、黄."""
    limit = max(min_items, _MAX_ITEMS) if max_items is None else min(max_items, MAX_LISTED)
    repeated = f"{{{max(min_items, 1) - 1},{max(limit, 1) - 1}}}"
    part, separator = (item.pattern, _SEPARATOR) if item.pattern else (_PART, "、")
    each = re.compile(part)
    pattern = f"({part})({separator}({part})){repeated}"

    def parse(reply: str, question: str) -> list[Any]:
        statement = None if item.pattern else _echoed(reply, question)
        values: list[Any] = []
        for found in each.finditer(reply if statement is None else statement):
            value = item.parse(found[0], question)
            if not (unique and value in values):
                values.append(value)
        if len(values) < min_items:
            raise UnusableError
        return values[:limit]

    if item.pattern is None:
        return Leaf(Query(""), parse, Query("", pattern) if min_items else None, listable=False)
    return replace(_in_sentence(pattern, parse, None), listable=False)


def optional(leaf: Leaf, absent: Any) -> Leaf:
    """The same leaf, but the model may answer that there is none, which gives `absent`."""
    if leaf.query.place is not None or (leaf.pattern is None and leaf.query.pattern is not None):
        return leaf

    def parse(reply: str, question: str) -> Any:
        stripped = reply.strip().rstrip("。.").removesuffix("です")
        return absent if stripped in _BLANKS else leaf.parse(reply, question)

    query = leaf.query
    if query.pattern is not None:
        query = replace(query, pattern=f"{query.pattern}|{_BLANK}(です)?。?")
    return replace(leaf, query=query, parse=parse)


def _in_sentence(pattern: str, parse: Parse, max_tokens: int | None = _SENTENCE) -> Leaf:
    """A value that matches `pattern`, with an optional topic before it and ending after it."""
    sentence = re.compile(f"{_TOPIC}(?P<value>{pattern}){_ENDING}", re.DOTALL)

    def find(reply: str, question: str) -> Any:
        found = sentence.fullmatch(reply.strip())
        if not found:
            raise UnusableError
        return parse(found["value"], question)

    query = Query("", f"{_TOPIC}({pattern}){_ENDING}", max_tokens=max_tokens)
    return Leaf(query, find, pattern=pattern)


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


def _tidy(reply: str, question: str) -> str:
    """Strip the repeated question, or quotes, from a reply that consists of the value and these."""
    statement = _echoed(reply, question)
    value = reply if statement is None or "、" in statement else statement
    closing = _QUOTES.get(value[:1])
    if closing and len(value) > 1 and value.find(closing, 1) == len(value) - 1:
        return value[1:-1]
    return value


def _echoed(reply: str, question: str) -> str | None:
    """Return what the reply states about the topic asked for; None if it has another topic."""
    statement = _STATEMENT.fullmatch(reply)
    if not statement:
        return None
    topics = _TOPICS.findall(question)
    topic, value = statement.groups()
    return value if any(topic.endswith(t) or t.endswith(topic) for t in topics) else None
