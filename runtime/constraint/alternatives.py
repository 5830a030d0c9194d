"""A schema without references and combinations: alternatives, of which a value follows one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

from issun.runtime.constraint.effort import Effort
from issun.runtime.constraint.plain import LEAST, MOST, TYPES, Plain, Where, type_of
from issun.runtime.constraint.references import Document, Place, inside
from issun.runtime.errors import ParameterError

_MOST_ALTERNATIVES = 256  # of one place, once everything is combined
_MOST_SIZE = 1 << 53  # of anything that is counted: no answer holds so many
_DEPTH = 4  # how deep two alternatives are searched for a difference
_LENGTH, _ITEMS = ("minLength", "maxLength"), ("minItems", "maxItems")
_LISTS = ("allOf", "anyOf", "oneOf")
_UNKNOWN = (  # keywords that say what is right and that nothing here follows
    *("not", "if", "contains", "propertyNames", "dependencies"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)
_SAY_NOTHING: dict[str, Any] = {
    "contains": True,
    "propertyNames": True,
    "unevaluatedItems": True,
}


class Alternatives:
    """The plain alternatives of a conjunction of places; they are worked out once.

    All that they cost counts against `effort`.
    """

    def __init__(self, document: Document, effort: Effort | None = None) -> None:
        self._document, self.effort = document, effort or Effort()
        self._any = Plain(finds=self.effort.finds)
        self._known: dict[Where, list[Plain]] = {}

    def of(self, where: Where | None) -> list[Plain]:
        """The alternatives of what follows all of `where`; none when nothing can.

        Raises ParameterError for a reference that leads back to itself, and for what is not
        followed here.
        """
        if where is None:
            return []
        if where not in self._known:
            found = [self._any]
            for place in where:
                found = self._product(place, found, self._at(place, ()))
            complete = (plain.completed() for plain in found)
            some = [replace(plain, types=self._types(plain, 1)) for plain in complete]
            self._known[where] = [plain for plain in some if not self._empty(plain)]
        return self._known[where]

    def _at(self, place: Place, trail: tuple[Place, ...]) -> list[Plain]:
        """The alternatives of one place; `trail` are those that led to it without a step inside."""
        self.effort.check()
        if place in trail:
            raise ParameterError("{path} refers to itself without an end.", path=place)
        node, trail = self._document.at(place), (*trail, place)
        if isinstance(node, bool):
            return [replace(self._any, place=place)] if node else []
        if not isinstance(node, dict):
            raise _wrong(place, node, "a schema is an object, true or false")
        _check_followed(node, place)
        found = [replace(_own(node, place), finds=self.effort.finds)]
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
                    options = self._apart(options, inside(place, name))
                found = self._product(place, found, [one for some in options for one in some])
        if node.get("unevaluatedProperties") is False:
            found = [p if p.stated else replace(p, stated=True, additional=None) for p in found]
        return found

    def _product(self, place: Place, a: list[Plain], b: list[Plain]) -> list[Plain]:
        if len(a) * len(b) > _MOST_ALTERNATIVES:
            raise ParameterError(
                "{path} has more than {limit} alternatives.", path=place, limit=_MOST_ALTERNATIVES
            )
        met = (self._met(one, other) for one in a for other in b)
        return [plain for plain in met if plain.types and plain.values != ()]

    def _met(self, one: Plain, other: Plain) -> Plain:
        self.effort.check()
        return one.meet(other)

    def _apart(self, options: Sequence[list[Plain]], place: Place) -> list[list[Plain]]:
        """`options` with the types they speak of; raises when a value of one may follow another."""
        typed = [[plain.typed() for plain in some] for some in options]
        for i, j in permutations(range(len(options)), 2):
            if any(not self._empty(self._met(a, b), _DEPTH) for a in typed[i] for b in options[j]):
                raise ParameterError(
                    "{path}: a value may follow two of the alternatives: write anyOf.", path=place
                )
        return typed

    def _empty(self, plain: Plain, depth: int = 1) -> bool:
        """True when no value can follow `plain`, as far as `depth` steps inside show."""
        types = self._types(plain, depth)
        if plain.values is None:
            return not types
        return not any(type_of(value) in types for _, value in plain.values)

    def _types(self, plain: Plain, depth: int) -> frozenset[str]:
        """The types of which there are values."""
        return frozenset(t for t in plain.types if not self._without_values(plain, t, depth))

    def _without_values(self, plain: Plain, kind: str, depth: int) -> bool:
        if kind in ("integer", "fraction"):
            return not plain.has_numbers(whole=kind == "integer")
        if kind == "object":
            return len(plain.required) > plain.limit("maxProperties", math.inf) or any(
                self._nothing(plain.property(name), depth - 1) for name in plain.required
            )
        least, most = {"string": _LENGTH, "array": _ITEMS}.get(kind, ("", ""))
        return bool(plain.limit(least, 0) > plain.limit(most, math.inf))

    def _nothing(self, where: Where | None, depth: int) -> bool:
        if where is None:
            return True
        if depth <= 0 or not where:
            return False
        found = [self._any]
        for place in where:
            found = self._product(place, found, self._at(place, ()))
        return all(self._empty(plain, depth) for plain in found)


def _own(node: dict[str, Any], place: Place) -> Plain:
    """What the keywords of `node` say, without those that refer or combine."""
    types = {t for name in _types(node, place) for t in _KINDS[name]}
    values: list[tuple[Place, Any]] | None = None
    if "enum" in node:
        listed = _list(node, "enum", place)
        values = [(inside(place, "enum", i), value) for i, value in enumerate(listed)]
    if "const" in node:
        values = [(inside(place, "const"), node["const"])]
    plain = Plain(
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
        families=_children(node, "patternProperties", place),
        **_rest(node, place),
    )
    if values is None:
        return plain
    return plain.meet(Plain(place=place, values=tuple(values)))


_KINDS = {name: (name,) for name in TYPES if name != "fraction"} | {
    "number": ("integer", "fraction")
}


def _types(node: dict[str, Any], place: Place) -> list[str]:
    given = node.get("type", list(_KINDS))
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(n, str) and n in _KINDS for n in names):
        raise _wrong(inside(place, "type"), given, "the types are " + ", ".join(_KINDS))
    return names


def _limits(node: dict[str, Any], place: Place) -> Iterator[tuple[str, Any]]:
    for name in (*LEAST, *MOST):
        if name not in node:
            continue
        if isinstance(node[name], bool):  # draft 4: the bound itself is out
            bound = name.replace("exclusiveM", "m")
            if node[name] and bound in node:
                yield name, _number(node, bound, place)
        else:
            value = _number(node, name, place)
            if "imum" not in name and (value < 0 or value != int(value)):
                raise _wrong(inside(place, name), value, "it must be a whole number")
            yield name, value if "imum" in name else min(int(value), _MOST_SIZE)


def _rest(node: dict[str, Any], place: Place) -> dict[str, Any]:
    """What holds for properties and items that are not listed."""
    found: dict[str, Any] = {}
    name = "additionalProperties"
    if name in node:
        found |= {"stated": True, "additional": _child(node, name, place)}
    old = isinstance(node.get("items"), list)  # drafts 4 to 2019
    first, rest = ("items", "additionalItems") if old else ("prefixItems", "items")
    if first in node:
        length = len(_list(node, first, place))
        found["prefix"] = tuple((inside(place, first, i),) for i in range(length))
    if rest in node:
        found["items"] = _child(node, rest, place)
    return found


def _child(node: dict[str, Any], name: str, place: Place) -> Where | None:
    if node[name] is False:
        return None
    return () if node[name] in (True, {}) else (inside(place, name),)


def _children(node: dict[str, Any], name: str, place: Place) -> dict[str, Where | None]:
    given = node.get(name, {})
    if not isinstance(given, dict):
        raise _wrong(inside(place, name), given, "it must be an object")
    return {key: _child(given, key, inside(place, name)) for key in given}


def _required(node: dict[str, Any], place: Place) -> tuple[str, ...]:
    given = node.get("required", [])
    if isinstance(given, bool):  # draft 3, and a common mistake: it asks for nothing that is known
        return ()
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise _wrong(inside(place, "required"), given, "it must be a list of names")
    return tuple(dict.fromkeys(given))


def _list(node: dict[str, Any], name: str, place: Place) -> list[Any]:
    given = node[name]
    if not isinstance(given, list) or not given:
        raise _wrong(inside(place, name), given, "it must be a list that is not empty")
    return given


def _number(node: dict[str, Any], name: str, place: Place) -> Any:
    given = node[name]
    if isinstance(given, bool) or not isinstance(given, int | float) or given - given != 0:
        raise _wrong(inside(place, name), given, "it must be a number")
    return given


def _text(node: dict[str, Any], name: str, place: Place) -> str:
    given = node[name]
    if not isinstance(given, str):
        raise _wrong(inside(place, name), given, "it must be a string")
    return given


def _multiples(node: dict[str, Any], place: Place) -> tuple[Any, ...]:
    if "multipleOf" not in node:
        return ()
    value = _number(node, "multipleOf", place)
    if value <= 0:
        raise _wrong(inside(place, "multipleOf"), value, "it must be above 0")
    return (value,)


def _flag(node: dict[str, Any], name: str, place: Place) -> bool:
    given = node.get(name, False)
    if not isinstance(given, bool):
        raise _wrong(inside(place, name), given, "it must be true or false")
    return given


def _check_followed(node: dict[str, Any], place: Place) -> None:
    for name in _UNKNOWN:
        if name in node and node[name] != _SAY_NOTHING.get(name, {}) and node[name] != {}:
            if name == "if" and not {"then", "else"} & node.keys():
                continue
            raise ParameterError("{path} cannot be followed.", path=inside(place, name))
    closed = node.get("unevaluatedProperties", False)
    if closed is not False and closed is not True and closed != {}:
        raise ParameterError(
            "{path} cannot be followed.", path=inside(place, "unevaluatedProperties")
        )


def _wrong(path: Place, value: Any, reason: str) -> ParameterError:
    return ParameterError(
        "{path} is {value!r:.80}: {reason}.", path=path, value=value, reason=reason
    )
