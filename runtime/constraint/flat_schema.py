"""One alternative of a schema, without references and combinators."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from issun.runtime.constraint.effort import Search, search
from issun.runtime.constraint.references import Place

# A conjunction of schemas, given by their places: a value must follow all. None: no value.
Conjunction = tuple[Place, ...]
ANYTHING: Conjunction = ()

# Numbers with a fractional part are a type of their own here, so that types are plain sets.
TYPES = ("object", "array", "string", "integer", "fraction", "boolean", "null")
LOWER_LIMITS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_LIMITS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def conjoin(a: Conjunction | None, b: Conjunction | None) -> Conjunction | None:
    """Return the conjunction of `a` and `b`."""
    return None if a is None or b is None else tuple(sorted({*a, *b}))


@dataclass(frozen=True, slots=True)
class FlatSchema:
    """The constraints on a value, keyword by keyword.

    `values` are those of an enum or const, with their places. `additional` applies to properties
    that are not listed. Unless a schema states it (`additional_given`), only listed properties
    are allowed. `finds` searches for a pattern in a text.
    """

    place: Place = "#"
    types: frozenset[str] = frozenset(TYPES)
    values: tuple[tuple[Place, Any], ...] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)  # keywords in LEAST and MOST
    multiples: tuple[Any, ...] = ()
    patterns: tuple[tuple[Place, str], ...] = ()
    formats: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    properties: Mapping[str, Conjunction | None] = field(default_factory=dict)
    pattern_properties: Mapping[str, Conjunction | None] = field(default_factory=dict)
    additional: Conjunction | None = ANYTHING
    additional_given: bool = False
    prefix: tuple[Conjunction | None, ...] = ()
    items: Conjunction | None = ANYTHING
    unique: Place | None = None  # the place of uniqueItems
    finds: Search = field(default=search, compare=False, repr=False)

    def intersect(self, other: FlatSchema) -> FlatSchema:
        """Return the conjunction with `other`."""
        values = self.values if other.values is None else other.values
        if self.values is not None and other.values is not None:
            known = {canonical(value) for _, value in other.values}
            values = tuple(item for item in self.values if canonical(item[1]) in known)
        names = dict.fromkeys((*self.properties, *other.properties))
        patterns = dict.fromkeys((*self.pattern_properties, *other.pattern_properties))
        length = max(len(self.prefix), len(other.prefix))
        return replace(
            self,
            place=other.place if self == FlatSchema() else self.place,
            types=self.types & other.types,
            values=values,
            limits=_narrower(self.limits, other.limits),
            multiples=(*self.multiples, *other.multiples),
            patterns=_union(self.patterns, other.patterns),
            formats=_union(self.formats, other.formats),
            required=_union(self.required, other.required),
            properties={name: conjoin(self.property(name), other.property(name)) for name in names},
            pattern_properties={
                p: conjoin(self._pattern_property(p), other._pattern_property(p)) for p in patterns
            },
            additional=conjoin(self.additional, other.additional),
            additional_given=self.additional_given or other.additional_given,
            prefix=tuple(conjoin(self.item(i), other.item(i)) for i in range(length)),
            items=conjoin(self.items, other.items),
            unique=self.unique or other.unique,
        )

    def property(self, name: str) -> Conjunction | None:
        """Return the conjunction that applies to the property `name`."""
        applicable = [
            places
            for pattern, places in self.pattern_properties.items()
            if self.finds(pattern, name)
        ]
        if name in self.properties:
            applicable.append(self.properties[name])
        found: Conjunction | None = ANYTHING
        for places in applicable or [self.additional]:
            found = conjoin(found, places)
        return found

    def item(self, index: int) -> Conjunction | None:
        """Return the conjunction that applies to an item."""
        return self.prefix[index] if index < len(self.prefix) else self.items

    def limit(self, name: str, default: Any) -> Any:
        """Return the value of a limit, or `default`."""
        return self.limits.get(name, default)

    def completed(self) -> FlatSchema:
        """Add implied types and required properties, and exclude properties that are not listed."""
        names = dict.fromkeys((*self.properties, *self.required))
        properties = {name: self.property(name) for name in names}
        closed = not self.additional_given and (self.properties or self.pattern_properties)
        additional = None if closed else self.additional
        return replace(self.typed(), properties=properties, additional=additional)

    def typed(self) -> FlatSchema:
        """Restrict the types to those that the keywords apply to, if all are allowed.

        Values of other types would be valid, but are never intended.
        """
        if self.types != frozenset(TYPES) or self.values is not None:
            return self
        return replace(self, types=self._implied_types() or self.types)

    def _pattern_property(self, pattern: str) -> Conjunction | None:
        return self.pattern_properties.get(pattern, self.additional)

    def _implied_types(self) -> frozenset[str]:
        implied: set[str] = set()
        names = set(self.limits)
        if self.properties or self.pattern_properties or self.required or self.additional_given:
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
        """Return the lower bound of a number, and whether it is exclusive."""
        return _bound(self.limits, "minimum", "exclusiveMinimum", max)

    def high(self) -> tuple[Fraction | None, bool]:
        """Return the upper bound of a number, and whether it is exclusive."""
        return _bound(self.limits, "maximum", "exclusiveMaximum", min)

    def has_numbers(self, *, whole: bool) -> bool:
        """Return whether there is a number, or an integer, within the bounds."""
        (low, low_exclusive), (high, high_exclusive) = self.low(), self.high()
        if low is None or high is None:
            return True
        units = [Fraction(str(multiple)) for multiple in self.multiples] + [Fraction(1)] * whole
        if not units or not all(units):
            return low < high or (low == high and not low_exclusive and not high_exclusive)
        unit = Fraction(
            math.lcm(*(u.numerator for u in units)), math.gcd(*(u.denominator for u in units))
        )
        first, last = math.ceil(low / unit), math.floor(high / unit)
        first += low_exclusive and first * unit == low
        last -= high_exclusive and last * unit == high
        return first <= last


def canonical(value: Any) -> str:
    """Return the same text for equal JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k!r}:{canonical(value[k])}" for k in sorted(value)) + "}"
    return json.dumps(value)


def type_of(value: Any) -> str:
    """Return the type of a JSON value, as in `TYPES`."""
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
        merged[name] = max(a[name], b[name]) if name in LOWER_LIMITS else min(a[name], b[name])
    return merged


def _bound(
    limits: Mapping[str, Any], name: str, exclusive: str, pick: Any
) -> tuple[Fraction | None, bool]:
    given = [Fraction(str(limits[n])) for n in (name, exclusive) if n in limits]
    if not given:
        return None, False
    bound: Fraction = pick(given)
    return bound, exclusive in limits and Fraction(str(limits[exclusive])) == bound
