"""The smallest and largest sizes of a schema's values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from issun.runtime.constraint import numbers
from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.flat_schema import Conjunction, FlatSchema
from issun.runtime.constraint.literals import Literals, dumps
from issun.runtime.constraint.references import inside
from issun.runtime.constraint.strings import Strings
from issun.runtime.constraint.validation import satisfies_keywords

_CHARACTERS = 4  # assumed maximum per token, for text that is not known in advance
REQUIRED_CHARACTERS = {  # characters that every value of a type may need
    "object": '{"}:,',
    "array": "[],",
    "string": '"',
    "number": "0123456789",
    "boolean": "truefalse",
    "null": "null",
}
_KEY = 3  # quotes and colon of a property of any name


def kinds(flat: FlatSchema) -> list[str]:
    """Return the kinds of values: listed ones, or the types, with numbers as one kind."""
    if flat.values is not None:
        return ["values"]
    order = ("object", "array", "string", "number", "boolean", "null")
    types = {"number" if kind in ("integer", "fraction") else kind for kind in flat.types}
    return [kind for kind in order if kind in types]


class Sizes:
    """Sizes of the smallest and largest values; infinite if there are none.

    `min_tokens` is the fewest tokens that spell the smallest value. `max_chars` is the number of
    characters of the largest value, each of which may become a token; in a listed one, characters
    that only parts spell count as these. `min_chars` is the number needed after all bounds are as
    tight as possible: the longest listed value, numbers of one digit.
    """

    def __init__(self, alternatives: Alternatives, literals: Literals, strings: Strings) -> None:
        self._alternatives, self._literals, self._strings = alternatives, literals, strings
        self.effort = alternatives.effort
        self._tokens = _Smallest(self, literals.tokens, _CHARACTERS, min)
        self._characters = _Smallest(self, literals.most_tokens, 1, max)
        self._max_chars: dict[Conjunction, float] = {}
        self._listed: dict[int, list[Any]] = {}

    def min_tokens(self, places: Conjunction | None) -> float:
        """Return the tokens of the smallest value."""
        return self._tokens.of(places)

    def min_chars(self, places: Conjunction | None) -> float:
        """Return the characters of values with the tightest bounds."""
        return self._characters.of(places)

    def min_chars_of(self, flat: FlatSchema, kind: str) -> float:
        """Return `min_chars` for one kind."""
        return self._characters.of_kind(flat, kind)

    def max_chars(self, places: Conjunction | None) -> float:
        """Return the characters of the largest value."""
        if places is None:
            return 0
        if places not in self._max_chars:
            self._max_chars[places] = math.inf  # for recursive schemas
            options = ((p, kind) for p in self._alternatives.of(places) for kind in kinds(p))
            self._max_chars[places] = max(
                (self._max_chars_of(*option) for option in options), default=0
            )
        return self._max_chars[places]

    def _max_chars_of(self, flat: FlatSchema, kind: str) -> float:
        if kind == "values":
            return max(map(self.literal, self.listed(flat)), default=0)
        if kind == "string":
            return float(flat.limit("maxLength", math.inf) + 2)
        if kind == "array":
            return 2 + self._max_chars_of_items(flat)
        if kind == "object":
            return 2 + self._max_chars_of_properties(flat)
        return numbers.longest(flat) if kind == "number" else len("false")

    def _max_chars_of_items(self, flat: FlatSchema) -> float:
        count = flat.limit("maxItems", math.inf)
        if flat.items is None:
            count = min(count, len(flat.prefix))
        elif count > len(flat.prefix) and self.max_chars(flat.items) == math.inf:
            return math.inf
        if count == math.inf:
            return math.inf
        listed = min(int(count), len(flat.prefix))
        size: float = sum(self.max_chars(flat.item(i)) + 1 for i in range(listed))
        if count > listed:
            size += (count - listed) * (self.max_chars(flat.items) + 1)
        return size

    def _max_chars_of_properties(self, flat: FlatSchema) -> float:
        if flat.pattern_properties or flat.additional is not None:
            return math.inf
        return sum(
            self.key_size(flat, name) + 1 + self.max_chars(places)
            for name, places in flat.properties.items()
        )

    def key(self, flat: FlatSchema, name: str) -> str:
        """Return a property's name and colon as they are spelled; raises ParameterError."""
        self.effort.check()
        places = flat.properties[name]
        place = places[0] if places else inside(flat.place, "properties", name)
        return dumps(self._literals.text(name, place)) + ":"

    def key_size(self, flat: FlatSchema, name: str) -> int:
        """Return the most tokens of a property's name and colon."""
        return self._literals.most_tokens(self.key(flat, name))

    def literal(self, value: Any) -> int:
        """Return the most tokens of a listed value."""
        return self._literals.most_tokens(dumps(value))

    def listed(self, flat: FlatSchema) -> list[Any]:
        """Return the values of an enum or const as they are spelled; raises ParameterError."""
        if id(flat) not in self._listed:  # `alternatives` keeps it alive, so the id is unique
            self._listed[id(flat)] = [
                self._literals.value(value, place)
                for place, value in flat.values or ()
                if satisfies_keywords(value, flat, self._alternatives)
            ]
        return self._listed[id(flat)]

    def alternatives(self, places: Conjunction) -> Iterable[tuple[FlatSchema, str]]:
        """Return the alternatives of a conjunction, kind by kind."""
        return [(flat, kind) for flat in self._alternatives.of(places) for kind in kinds(flat)]

    def unspellable(self, kind: str) -> str | None:
        """Return a character that values of this kind need and that no token spells."""
        return self._literals.missing(REQUIRED_CHARACTERS.get(kind, ""))

    def shortest_string(self, flat: FlatSchema) -> float:
        """Return the characters of a short string that follows `flat`."""
        return self._strings.shortest(flat)


class _Smallest:
    """Computes the size of the smallest value of each conjunction, by one measure of text.

    Recursive schemas start with an infinite size and are iterated to a fixed point.
    """

    def __init__(
        self,
        sizes: Sizes,
        measure: Callable[[str], int],
        characters: int,
        pick: Callable[[Iterable[int]], int],  # min or max of the listed values
    ) -> None:
        self._sizes, self._measure, self._characters = sizes, measure, characters
        self._pick = pick
        self._known: dict[Conjunction, float] = {}

    def of(self, places: Conjunction | None) -> float:
        """Return the size of the smallest value of `places`."""
        if places is None:
            return math.inf
        if places not in self._known:
            self._nested(places)
            before: dict[Conjunction, float] = {}
            while before != self._known:
                before = dict(self._known)
                for place in before:
                    self._known[place] = self._estimate(place)
        return self._known[places]

    def of_kind(self, flat: FlatSchema, kind: str) -> float:
        """Return the size of the smallest value of one kind."""
        if kind == "values":
            texts = [dumps(value) for value in self._sizes.listed(flat)]
            return self._pick(map(self._measure, texts)) if texts else math.inf
        return math.inf if self._sizes.unspellable(kind) else self._of_type(flat, kind)

    def _of_type(self, flat: FlatSchema, kind: str) -> float:
        if kind == "string":
            return 2 + _ceil(self._sizes.shortest_string(flat) / self._characters)
        if kind == "number":
            return numbers.shortest(flat)
        if kind == "array":
            return self._array(flat)
        return self._object(flat) if kind == "object" else self._measure("false")

    def _array(self, flat: FlatSchema) -> float:
        count = int(flat.limit("minItems", 0))
        listed = min(count, len(flat.prefix))
        size: float = sum(1 + self._nested(flat.item(i)) for i in range(listed))
        if count > listed:
            size += (count - listed) * (1 + self._nested(flat.items))
        return 1 + max(1, size)

    def _object(self, flat: FlatSchema) -> float:
        sizes = {
            name: self._measure(self._sizes.key(flat, name)) + self._nested(places)
            for name, places in flat.properties.items()
        }
        needed = [sizes.pop(name) for name in flat.required]
        size = sum(1 + each for each in needed)
        missing = int(flat.limit("minProperties", 0)) - len(needed)
        if missing > 0:
            others = [
                self._nested(places)
                for places in (*flat.pattern_properties.values(), flat.additional)
            ]
            other = 1 + _KEY + min(others)
            listed = sorted(1 + each for each in sizes.values())[:missing]
            size += sum(min(each, other) for each in listed)
            if missing > len(listed):
                size += (missing - len(listed)) * other
        return 1 + max(1, size)

    def _estimate(self, places: Conjunction) -> float:
        options = self._sizes.alternatives(places)
        return min((self.of_kind(flat, kind) for flat, kind in options), default=math.inf)

    def _nested(self, places: Conjunction | None) -> float:
        """Return the current estimate for a nested conjunction."""
        if places is None:
            return math.inf
        if places not in self._known:
            self._known[places] = math.inf
            self._known[places] = self._estimate(places)
        return self._known[places]


def _ceil(size: float) -> float:
    return size if size == math.inf else math.ceil(size)
