"""How large the values of a schema are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from issun.runtime.constraint import numbers
from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.following import fits
from issun.runtime.constraint.literals import Literals, dumps
from issun.runtime.constraint.plain import Plain, Where
from issun.runtime.constraint.references import inside
from issun.runtime.constraint.strings import Strings

_CHARACTERS = 4  # that a token spells at most, of text that nobody knows yet
WRITTEN = {  # what JSON writes besides what it is told
    "object": '{"}:,',
    "array": "[],",
    "string": '"',
    "number": "0123456789",
    "boolean": "truefalse",
    "null": "null",
}
_KEY = 3  # quotes and colon of a property of any name


def kinds(plain: Plain) -> list[str]:
    """What values there are: those listed, or the types, those of numbers as one."""
    if plain.values is not None:
        return ["values"]
    order = ("object", "array", "string", "number", "boolean", "null")
    types = {"number" if kind in ("integer", "fraction") else kind for kind in plain.types}
    return [kind for kind in order if kind in types]


class Sizes:
    """How many tokens the smallest and the largest values need; infinite where there are none.

    `least` counts the fewest tokens that spell the smallest value. `most` counts the characters of
    the largest, each of which may become a token. `narrowest` counts those of the values that are
    left where all that may be bounded is: any of the values that are listed, numbers of one digit.
    """

    def __init__(self, alternatives: Alternatives, literals: Literals, strings: Strings) -> None:
        self._alternatives, self._literals, self._strings = alternatives, literals, strings
        self.effort = alternatives.effort
        self._tokens = _Smallest(self, literals.tokens, _CHARACTERS, min)
        self._characters = _Smallest(self, len, 1, max)
        self._most: dict[Where, float] = {}
        self._listed: dict[int, list[Any]] = {}

    def least(self, where: Where | None) -> float:
        """Tokens of the smallest value."""
        return self._tokens.of(where)

    def narrowest(self, where: Where | None) -> float:
        """Characters of a value that is bounded as far as can be."""
        return self._characters.of(where)

    def narrowest_of(self, plain: Plain, kind: str) -> float:
        """As `narrowest`, of one kind."""
        return self._characters.of_kind(plain, kind)

    def most(self, where: Where | None) -> float:
        """Characters of the largest value."""
        if where is None:
            return 0
        if where not in self._most:
            self._most[where] = math.inf  # also of what holds itself
            options = ((p, kind) for p in self._alternatives.of(where) for kind in kinds(p))
            self._most[where] = max((self._most_of(*option) for option in options), default=0)
        return self._most[where]

    def _most_of(self, plain: Plain, kind: str) -> float:
        if kind == "values":
            return max((len(dumps(value)) for value in self.listed(plain)), default=0)
        if kind == "string":
            return float(plain.limit("maxLength", math.inf) + 2)
        if kind == "array":
            return 2 + self._most_items(plain)
        if kind == "object":
            return 2 + self._most_properties(plain)
        return numbers.longest(plain) if kind == "number" else len("false")

    def _most_items(self, plain: Plain) -> float:
        count = plain.limit("maxItems", math.inf)
        if plain.items is None:
            count = min(count, len(plain.prefix))
        elif count > len(plain.prefix) and self.most(plain.items) == math.inf:
            return math.inf
        if count == math.inf:
            return math.inf
        listed = min(int(count), len(plain.prefix))
        size: float = sum(self.most(plain.item(i)) + 1 for i in range(listed))
        return size + (count - listed) * (self.most(plain.items) + 1) if count > listed else size

    def _most_properties(self, plain: Plain) -> float:
        if plain.families or plain.additional is not None:
            return math.inf
        return sum(
            len(self.key(plain, name)) + 1 + self.most(where)
            for name, where in plain.properties.items()
        )

    def key(self, plain: Plain, name: str) -> str:
        """A property's name and the colon, as they are spelled; raises ParameterError."""
        self.effort.check()
        where = plain.properties[name]
        place = where[0] if where else inside(plain.place, "properties", name)
        return dumps(self._literals.text(name, place)) + ":"

    def listed(self, plain: Plain) -> list[Any]:
        """The values of an enum or const, as they are spelled; raises ParameterError."""
        if id(plain) not in self._listed:  # the alternatives keep it, and so its identity
            self._listed[id(plain)] = [
                self._literals.value(value, place)
                for place, value in plain.values or ()
                if fits(value, plain, self._alternatives)
            ]
        return self._listed[id(plain)]

    def alternatives(self, where: Where) -> Iterable[tuple[Plain, str]]:
        """The alternatives of a place, kind by kind."""
        return [(plain, kind) for plain in self._alternatives.of(where) for kind in kinds(plain)]

    def unwritable(self, kind: str) -> str | None:
        """A character that values of this kind need and no token spells."""
        return self._literals.missing(WRITTEN.get(kind, ""))

    def shortest_string(self, plain: Plain) -> float:
        """Characters of a short string that follows `plain`."""
        return self._strings.shortest(plain)


class _Smallest:
    """The size of the smallest value of each place, by one measure of text.

    Of what holds itself it is infinite at first, and worked out until nothing changes.
    """

    def __init__(
        self,
        sizes: Sizes,
        measure: Callable[[str], int],
        characters: int,
        pick: Callable[[Iterable[int]], int],  # of the values that are listed
    ) -> None:
        self._sizes, self._measure, self._characters = sizes, measure, characters
        self._pick = pick
        self._known: dict[Where, float] = {}

    def of(self, where: Where | None) -> float:
        """The size of the smallest value that follows `where`."""
        if where is None:
            return math.inf
        if where not in self._known:
            self._inner(where)
            before: dict[Where, float] = {}
            while before != self._known:
                before = dict(self._known)
                for place in before:
                    self._known[place] = self._once(place)
        return self._known[where]

    def of_kind(self, plain: Plain, kind: str) -> float:
        """The size of the smallest value of one kind."""
        if kind == "values":
            texts = [dumps(value) for value in self._sizes.listed(plain)]
            return self._pick(map(self._measure, texts)) if texts else math.inf
        return math.inf if self._sizes.unwritable(kind) else self._of_type(plain, kind)

    def _of_type(self, plain: Plain, kind: str) -> float:
        if kind == "string":
            return 2 + _ceil(self._sizes.shortest_string(plain) / self._characters)
        if kind == "number":
            return numbers.shortest(plain)
        if kind == "array":
            return self._array(plain)
        return self._object(plain) if kind == "object" else self._measure("false")

    def _array(self, plain: Plain) -> float:
        count = int(plain.limit("minItems", 0))
        listed = min(count, len(plain.prefix))
        size: float = sum(1 + self._inner(plain.item(i)) for i in range(listed))
        if count > listed:
            size += (count - listed) * (1 + self._inner(plain.items))
        return 1 + max(1, size)

    def _object(self, plain: Plain) -> float:
        sizes = {
            name: self._measure(self._sizes.key(plain, name)) + self._inner(where)
            for name, where in plain.properties.items()
        }
        needed = [sizes.pop(name) for name in plain.required]
        size = sum(1 + each for each in needed)
        missing = int(plain.limit("minProperties", 0)) - len(needed)
        if missing > 0:
            others = [self._inner(where) for where in (*plain.families.values(), plain.additional)]
            other = 1 + _KEY + min(others)
            listed = sorted(1 + each for each in sizes.values())[:missing]
            size += sum(min(each, other) for each in listed)
            if missing > len(listed):
                size += (missing - len(listed)) * other
        return 1 + max(1, size)

    def _once(self, where: Where) -> float:
        options = self._sizes.alternatives(where)
        return min((self.of_kind(plain, kind) for plain, kind in options), default=math.inf)

    def _inner(self, where: Where | None) -> float:
        """As `of`, of what is within something that is being worked out."""
        if where is None:
            return math.inf
        if where not in self._known:
            self._known[where] = math.inf
            self._known[where] = self._once(where)
        return self._known[where]


def _ceil(size: float) -> float:
    return size if size == math.inf else math.ceil(size)
