"""One plain alternative of a schema: no references, nothing combined."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from issun.runtime.constraint.effort import Search, search
from issun.runtime.constraint.references import Place

# What a value must follow is a conjunction: the places of schemas that all hold. None: no value.
Where = tuple[Place, ...]
ANYTHING: Where = ()

# A number with a fraction is a type of its own here, so that types are sets.
TYPES = ("object", "array", "string", "integer", "fraction", "boolean", "null")
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def both(a: Where | None, b: Where | None) -> Where | None:
    """What follows `a` and `b`."""
    return None if a is None or b is None else tuple(sorted({*a, *b}))


@dataclass(frozen=True, slots=True)
class Plain:
    """What a value must be, keyword by keyword.

    `values` are those of an enum or const, with their places. `additional` holds for properties
    that are not listed; where no schema has `stated` it, listed properties are all. `finds` says
    whether a pattern is found in a text.
    """

    place: Place = "#"
    types: frozenset[str] = frozenset(TYPES)
    values: tuple[tuple[Place, Any], ...] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)  # of LEAST and MOST
    multiples: tuple[Any, ...] = ()
    patterns: tuple[tuple[Place, str], ...] = ()
    formats: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    properties: Mapping[str, Where | None] = field(default_factory=dict)
    families: Mapping[str, Where | None] = field(default_factory=dict)  # patternProperties
    additional: Where | None = ANYTHING
    stated: bool = False
    prefix: tuple[Where | None, ...] = ()
    items: Where | None = ANYTHING
    unique: Place | None = None  # of the keyword that says that no two items are equal
    finds: Search = field(default=search, compare=False, repr=False)

    def meet(self, other: Plain) -> Plain:
        """What follows both."""
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            known = {canonical(value) for _, value in other.values}
            values = tuple(item for item in self.values if canonical(item[1]) in known)
        names = dict.fromkeys((*self.properties, *other.properties))
        patterns = dict.fromkeys((*self.families, *other.families))
        length = max(len(self.prefix), len(other.prefix))
        return replace(
            self,
            place=other.place if self == Plain() else self.place,
            types=self.types & other.types,
            values=values,
            limits=_narrower(self.limits, other.limits),
            multiples=(*self.multiples, *other.multiples),
            patterns=_union(self.patterns, other.patterns),
            formats=_union(self.formats, other.formats),
            required=_union(self.required, other.required),
            properties={name: both(self.property(name), other.property(name)) for name in names},
            families={p: both(self._family(p), other._family(p)) for p in patterns},
            additional=both(self.additional, other.additional),
            stated=self.stated or other.stated,
            prefix=tuple(both(self.item(i), other.item(i)) for i in range(length)),
            items=both(self.items, other.items),
            unique=self.unique or other.unique,
        )

    def property(self, name: str) -> Where | None:
        """What the property `name` must follow."""
        holding = [where for pattern, where in self.families.items() if self.finds(pattern, name)]
        if name in self.properties:
            holding.append(self.properties[name])
        found: Where | None = ANYTHING
        for where in holding or [self.additional]:
            found = both(found, where)
        return found

    def item(self, place: int) -> Where | None:
        """What an item must follow."""
        return self.prefix[place] if place < len(self.prefix) else self.items

    def limit(self, name: str, default: Any) -> Any:
        """The value of a limit."""
        return self.limits.get(name, default)

    def completed(self) -> Plain:
        """With what follows from the whole: types, required properties, and no others."""
        names = dict.fromkeys((*self.properties, *self.required))
        properties = {name: self.property(name) for name in names}
        closed = not self.stated and (self.properties or self.families)
        additional = None if closed else self.additional
        return replace(self.typed(), properties=properties, additional=additional)

    def typed(self) -> Plain:
        """With the types that its keywords speak of, where it allows all.

        A value of another type would be right, but is never meant.
        """
        if self.types != frozenset(TYPES) or self.values is not None:
            return self
        return replace(self, types=self._implied() or self.types)

    def _family(self, pattern: str) -> Where | None:
        return self.families.get(pattern, self.additional)

    def _implied(self) -> frozenset[str]:
        implied: set[str] = set()
        names = set(self.limits)
        if self.properties or self.families or self.required or self.stated:
            implied.add("object")
        if names & {"minProperties", "maxProperties"}:
            implied.add("object")
        if self.prefix or self.items != ANYTHING or self.unique or names & {"minItems", "maxItems"}:
            implied.add("array")
        if self.patterns or self.formats or names & {"minLength", "maxLength"}:
            implied.add("string")
        if self.multiples or any("imum" in name for name in names):
            implied |= {"integer", "fraction"}
        return frozenset(implied)

    def low(self) -> tuple[Fraction | None, bool]:
        """The lower bound of a number, and whether the bound itself is out."""
        return _bound(self.limits, "minimum", "exclusiveMinimum", max)

    def high(self) -> tuple[Fraction | None, bool]:
        """The upper bound of a number, and whether the bound itself is out."""
        return _bound(self.limits, "maximum", "exclusiveMaximum", min)

    def has_numbers(self, *, whole: bool) -> bool:
        """Whether there is a number, or a whole one, within the bounds."""
        (low, low_out), (high, high_out) = self.low(), self.high()
        if low is None or high is None:
            return True
        units = [Fraction(str(multiple)) for multiple in self.multiples] + [Fraction(1)] * whole
        if not units or not all(units):
            return low < high or (low == high and not low_out and not high_out)
        unit = Fraction(
            math.lcm(*(u.numerator for u in units)), math.gcd(*(u.denominator for u in units))
        )
        first, last = math.ceil(low / unit), math.floor(high / unit)
        first += low_out and first * unit == low
        last -= high_out and last * unit == high
        return first <= last


def canonical(value: Any) -> str:
    """The same text for equal JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{canonical(value[k])}" for k in sorted(value)) + "}"
    return json.dumps(value)


def type_of(value: Any) -> str:
    """The type of a JSON value, as `Plain` has them."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "fraction"
    names = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _union(a: Sequence[Any], b: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*a, *b)))


def _narrower(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**a, **b}
    for name in a.keys() & b.keys():
        merged[name] = max(a[name], b[name]) if name in LEAST else min(a[name], b[name])
    return merged


def _bound(
    limits: Mapping[str, Any], name: str, exclusive: str, pick: Any
) -> tuple[Fraction | None, bool]:
    given = [Fraction(str(limits[n])) for n in (name, exclusive) if n in limits]
    if not given:
        return None, False
    bound: Fraction = pick(given)
    return bound, exclusive in limits and Fraction(str(limits[exclusive])) == bound
