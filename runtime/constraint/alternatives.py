"""A schema in disjunctive form: alternatives without references and combinators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.flat_schema import (
    LOWER_LIMITS,
    TYPES,
    UPPER_LIMITS,
    Conjunction,
    FlatSchema,
    type_of,
)
from issun.runtime.constraint.references import Document, Place, inside
from issun.runtime.errors import ParameterError

_MAX_ALTERNATIVES = 256  # of one schema, after expansion
_MAX_SIZE = 1 << 53  # of a limit: no answer is longer
_DEPTH = 4  # nesting levels to search for a difference between two alternatives
_LENGTH, _ITEMS = ("minLength", "maxLength"), ("minItems", "maxItems")
_LISTS = ("allOf", "anyOf", "oneOf")
_UNSUPPORTED = (  # constraining keywords that are not supported
    *("not", "if", "contains", "propertyNames", "dependencies"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)
_NO_EFFECT: dict[str, Any] = {
    "contains": True,
    "propertyNames": True,
    "unevaluatedItems": True,
}


class Alternatives:
    """Computes and caches the alternatives of conjunctions of schemas.

    All that they cost counts against `effort`.
    """

    def __init__(self, document: Document, effort: Effort | None = None) -> None:
        self._document, self.effort = document, effort or Effort()
        self._any = FlatSchema(finds=self.effort.finds)
        self._cache: dict[Conjunction, list[FlatSchema]] = {}

    def of(self, places: Conjunction | None) -> list[FlatSchema]:
        """Return the alternatives of the conjunction `places`; empty if it is unsatisfiable.

        Raises ParameterError for a reference cycle and for unsupported keywords.
        """
        if places is None:
            return []
        if places not in self._cache:
            found = [self._any]
            for place in places:
                found = self._product(place, found, self._at(place, ()))
            complete = (flat.completed() for flat in found)
            typed = [replace(flat, types=self._types(flat, 1)) for flat in complete]
            self._cache[places] = [flat for flat in typed if not self._is_empty(flat)]
        return self._cache[places]

    def _at(self, place: Place, trail: tuple[Place, ...]) -> list[FlatSchema]:
        """Return the alternatives of one schema; `trail` detects cycles of references."""
        self.effort.check()
        if place in trail:
            raise ParameterError("{path} is a circular reference.", path=place)
        node, trail = self._document.at(place), (*trail, place)
        if isinstance(node, bool):
            return [replace(self._any, place=place)] if node else []
        if not isinstance(node, dict):
            raise _invalid(place, node, "a schema is an object, true or false")
        _check_supported(node, place)
        found = [replace(_own_keywords(node, place), finds=self.effort.finds)]
        if "$ref" in node:
            target = self._document.target(place, node["$ref"])
            found = self._product(place, found, self._at(target, trail))
        for name in _LISTS:
            if name not in node:
                continue
            children = _list(node, name, place)
            options = [self._at(inside(place, name, i), trail) for i in range(len(children))]
            if name == "allOf":
                for option in options:
                    found = self._product(place, found, option)
            else:
                if name == "oneOf":
                    options = self._check_disjoint(options, inside(place, name))
                found = self._product(place, found, [flat for option in options for flat in option])
        if node.get("unevaluatedProperties") is False:
            found = [
                p if p.additional_given else replace(p, additional_given=True, additional=None)
                for p in found
            ]
        return found

    def _product(self, place: Place, a: list[FlatSchema], b: list[FlatSchema]) -> list[FlatSchema]:
        if len(a) * len(b) > _MAX_ALTERNATIVES:
            raise ParameterError(
                "{path} has more than {limit} alternatives.", path=place, limit=_MAX_ALTERNATIVES
            )
        products = (self._intersect(one, other) for one in a for other in b)
        return [flat for flat in products if flat.types and flat.values != ()]

    def _intersect(self, one: FlatSchema, other: FlatSchema) -> FlatSchema:
        self.effort.check()
        return one.intersect(other)

    def _check_disjoint(
        self, options: Sequence[list[FlatSchema]], place: Place
    ) -> list[list[FlatSchema]]:
        """Add implied types to `options`; raises ParameterError unless they are disjoint."""
        typed = [[flat.typed() for flat in option] for option in options]
        for i, j in permutations(range(len(options)), 2):
            if any(
                not self._is_empty(self._intersect(a, b), _DEPTH)
                for a in typed[i]
                for b in options[j]
            ):
                raise ParameterError(
                    "{path}: a value could match two of the alternatives: use anyOf.", path=place
                )
        return typed

    def _is_empty(self, flat: FlatSchema, depth: int = 1) -> bool:
        """Return whether `flat` is unsatisfiable, as far as `depth` nesting levels show."""
        types = self._types(flat, depth)
        if flat.values is None:
            return not types
        return not any(type_of(value) in types for _, value in flat.values)

    def _types(self, flat: FlatSchema, depth: int) -> frozenset[str]:
        """Return the types that have any values."""
        return frozenset(t for t in flat.types if not self._has_no_values(flat, t, depth))

    def _has_no_values(self, flat: FlatSchema, kind: str, depth: int) -> bool:
        if kind in ("integer", "fraction"):
            return not flat.has_numbers(whole=kind == "integer")
        if kind == "object":
            return len(flat.required) > flat.limit("maxProperties", math.inf) or any(
                self._is_unsatisfiable(flat.property(name), depth - 1) for name in flat.required
            )
        least, most = {"string": _LENGTH, "array": _ITEMS}.get(kind, ("", ""))
        return bool(flat.limit(least, 0) > flat.limit(most, math.inf))

    def _is_unsatisfiable(self, places: Conjunction | None, depth: int) -> bool:
        if places is None:
            return True
        if depth <= 0 or not places:
            return False
        found = [self._any]
        for place in places:
            found = self._product(place, found, self._at(place, ()))
        return all(self._is_empty(flat, depth) for flat in found)


def _own_keywords(node: dict[str, Any], place: Place) -> FlatSchema:
    """Convert the keywords of `node` that are not references or combinators."""
    types = {t for name in _types(node, place) for t in _KINDS[name]}
    values: list[tuple[Place, Any]] | None = None
    if "enum" in node:
        listed = _list(node, "enum", place)
        values = [(inside(place, "enum", i), value) for i, value in enumerate(listed)]
    if "const" in node:
        values = [(inside(place, "const"), node["const"])]
    flat = FlatSchema(
        place=place,
        types=frozenset(types),
        limits=dict(_limits(node, place)),
        multiples=_multiples(node, place),
        patterns=((inside(place, "pattern"), _text(node, "pattern", place)),)
        if "pattern" in node
        else (),
        formats=(_text(node, "format", place),) if "format" in node else (),
        unique=inside(place, "uniqueItems") if _flag(node, "uniqueItems", place) else None,
        required=_required(node, place),
        properties=_children(node, "properties", place),
        pattern_properties=_children(node, "patternProperties", place),
        **_rest(node, place),
    )
    if values is None:
        return flat
    return flat.intersect(FlatSchema(place=place, values=tuple(values)))


_KINDS = {name: (name,) for name in TYPES if name != "fraction"} | {
    "number": ("integer", "fraction")
}


def _types(node: dict[str, Any], place: Place) -> list[str]:
    given = node.get("type", list(_KINDS))
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(n, str) and n in _KINDS for n in names):
        raise _invalid(inside(place, "type"), given, "the types are " + ", ".join(_KINDS))
    return names


def _limits(node: dict[str, Any], place: Place) -> Iterator[tuple[str, Any]]:
    for name in (*LOWER_LIMITS, *UPPER_LIMITS):
        if name not in node:
            continue
        if isinstance(node[name], bool):  # draft 4: a flag that excludes the bound
            bound = name.replace("exclusiveM", "m")
            if node[name] and bound in node:
                yield name, _number(node, bound, place)
        else:
            value = _number(node, name, place)
            if "imum" not in name and (value < 0 or value != int(value)):
                raise _invalid(inside(place, name), value, "it must be a whole number")
            yield name, value if "imum" in name else min(int(value), _MAX_SIZE)


def _rest(node: dict[str, Any], place: Place) -> dict[str, Any]:
    """Convert the keywords for properties and items that are not listed."""
    found: dict[str, Any] = {}
    name = "additionalProperties"
    if name in node:
        found |= {"additional_given": True, "additional": _child(node, name, place)}
    old = isinstance(node.get("items"), list)  # drafts 4 to 2019-09
    first, rest = ("items", "additionalItems") if old else ("prefixItems", "items")
    if first in node:
        length = len(_list(node, first, place))
        found["prefix"] = tuple((inside(place, first, i),) for i in range(length))
    if rest in node:
        found["items"] = _child(node, rest, place)
    return found


def _child(node: dict[str, Any], name: str, place: Place) -> Conjunction | None:
    if node[name] is False:
        return None
    return () if node[name] in (True, {}) else (inside(place, name),)


def _children(node: dict[str, Any], name: str, place: Place) -> dict[str, Conjunction | None]:
    given = node.get(name, {})
    if not isinstance(given, dict):
        raise _invalid(inside(place, name), given, "it must be an object")
    return {key: _child(given, key, inside(place, name)) for key in given}


def _required(node: dict[str, Any], place: Place) -> tuple[str, ...]:
    given = node.get("required", [])
    if isinstance(given, bool):  # draft 3, and a common mistake: it has no effect
        return ()
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise _invalid(inside(place, "required"), given, "it must be a list of names")
    return tuple(dict.fromkeys(given))


def _list(node: dict[str, Any], name: str, place: Place) -> list[Any]:
    given = node[name]
    if not isinstance(given, list) or not given:
        raise _invalid(inside(place, name), given, "it must be a list that is not empty")
    return given


def _number(node: dict[str, Any], name: str, place: Place) -> Any:
    given = node[name]
    if isinstance(given, bool) or not isinstance(given, int | float) or given - given != 0:
        raise _invalid(inside(place, name), given, "it must be a number")
    return given


def _text(node: dict[str, Any], name: str, place: Place) -> str:
    given = node[name]
    if not isinstance(given, str):
        raise _invalid(inside(place, name), given, "it must be a string")
    return given


def _multiples(node: dict[str, Any], place: Place) -> tuple[Any, ...]:
    if "multipleOf" not in node:
        return ()
    value = _number(node, "multipleOf", place)
    if value <= 0:
        raise _invalid(inside(place, "multipleOf"), value, "it must be above 0")
    return (value,)


def _flag(node: dict[str, Any], name: str, place: Place) -> bool:
    given = node.get(name, False)
    if not isinstance(given, bool):
        raise _invalid(inside(place, name), given, "it must be true or false")
    return given


def _check_supported(node: dict[str, Any], place: Place) -> None:
    for name in _UNSUPPORTED:
        if name in node and node[name] != _NO_EFFECT.get(name, {}) and node[name] != {}:
            if name == "if" and not {"then", "else"} & node.keys():
                continue
            raise ParameterError("{path} is not supported.", path=inside(place, name))
    closed = node.get("unevaluatedProperties", False)
    if closed is not False and closed is not True and closed != {}:
        raise ParameterError(
            "{path} is not supported.", path=inside(place, "unevaluatedProperties")
        )


def _invalid(path: Place, value: Any, reason: str) -> ParameterError:
    return ParameterError(
        "{path} is {value!r:.80}: {reason}.", path=path, value=value, reason=reason
    )
