"""A schema whose every value fits the room that an answer has, and follows the given schema."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from issun.runtime.constraint import numbers
from issun.runtime.constraint.literals import Literals
from issun.runtime.constraint.patterns import bounded, other_than
from issun.runtime.constraint.plain import Plain, Where
from issun.runtime.constraint.sizes import WRITTEN, Sizes
from issun.runtime.constraint.steps import shares, step
from issun.runtime.constraint.strings import ESCAPES, Strings
from issun.runtime.constraint.vocabulary import cannot_spell
from issun.runtime.errors import ParameterError

_MOST_DEFINITIONS = 2000
_KEY = 16  # characters of a property's name that the schema leaves open


class Fitter:
    """Makes schemas for llguidance: definitions without a circle, each for some room.

    What has no bound gets one, and so has what its schema lets grow beyond the room: strings,
    arrays, names and numbers of properties, depth. Optional properties and alternatives that do not
    fit are left out. Where not even the smallest value fits, it is allowed.
    """

    def __init__(self, sizes: Sizes, literals: Literals, strings: Strings) -> None:
        self._sizes, self._literals, self._strings = sizes, literals, strings
        self._names: dict[tuple[Where, int], str] = {}
        self._definitions: dict[str, Any] = {}

    def schema(self, where: Where, room: int) -> dict[str, Any]:
        """The schema of what follows `where` in `room` characters, where anything can."""
        options = {"whitespace_flexible": False, "json_allowed_escapes": ESCAPES}
        root = self._fit(where, room)
        return {**root, "$defs": self._definitions, "x-guidance": options}

    def explain(self, where: Where) -> None:
        """Raise ParameterError that says why no value can be written, if none can."""
        self._explain(where, ())

    def _fit(self, where: Where | None, room: float) -> Any:
        """A schema of what follows `where` in so much room."""
        self._sizes.effort.check()
        if where is None:
            return False
        room = max(step(int(room)), int(self._sizes.narrowest(where)))
        key = where, room
        if len(self._names) >= _MOST_DEFINITIONS:
            raise ParameterError("The schema is too large: take a simpler one.")
        if key not in self._names:
            name = self._names[key] = str(len(self._names))
            self._definitions[name] = self._alternatives(where, room)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _alternatives(self, where: Where, room: int) -> dict[str, Any]:
        options = [
            self._kind(plain, kind, room)
            for plain, kind in self._sizes.alternatives(where)
            if self._sizes.narrowest_of(plain, kind) <= room
        ]
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _kind(self, plain: Plain, kind: str, room: int) -> dict[str, Any]:
        if kind == "values":
            return {"enum": self._sizes.listed(plain)}
        if kind == "object":
            return self._object(plain, room)
        if kind == "array":
            return self._array(plain, room)
        if kind == "string":
            return self._strings.fit(plain, room)
        return numbers.fit(plain, room) if kind == "number" else {"type": kind}

    def _array(self, plain: Plain, room: int) -> dict[str, Any]:
        if plain.unique:
            raise ParameterError("{path} cannot be followed.", path=plain.unique)
        count = least = int(plain.limit("minItems", 0))
        most = plain.limit("maxItems", math.inf)
        left = room - 2 - sum(1 + self._need(plain.item(i))[0] for i in range(least))
        while count < most:
            narrowest, widest = self._need(plain.item(count))
            # A value that may grow gets as much again, and only so many share the room.
            wanted = 1 + max(narrowest, min(widest, 2 * narrowest))
            enough = widest == math.inf and count >= max(len(plain.prefix), _count(room))
            if wanted > left or enough:
                break
            count, left = count + 1, left - wanted
        needs = [self._need(plain.item(i)) for i in range(count)]
        rooms = shares(room - 2 - count, needs)
        listed = min(len(plain.prefix), count)
        prefix = [self._fit(plain.item(i), rooms[i]) for i in range(listed)]
        schema: dict[str, Any] = {"type": "array", "minItems": least, "maxItems": count}
        if prefix:
            schema["prefixItems"] = prefix
        if count > listed:
            schema["items"] = self._fit(plain.item(listed), min(rooms[listed:]))
        return schema

    def _object(self, plain: Plain, room: int) -> dict[str, Any]:
        names = self._kept(plain, room)
        closed = self._closed(plain, names, plain.required, room)
        families = self._families(plain)
        missing = int(plain.limit("minProperties", 0)) - len(names)
        most = plain.limit("maxProperties", math.inf) - len(names)
        if not families or most < 1:
            return closed
        # Half of the room is for names that are not listed, beside all that are.
        half = max(room // 2, int(self._listed(plain, names))) if names else 0
        needs = [self._need(where)[0] for where in families.values()]
        count = int(max(missing, min(most, _count(room), (room - half) // (2 * min(needs) + 8))))
        if count < 1:
            return closed
        each = (room - half - 2) // count
        key = step(min(_KEY, each // 4))
        taken = [*plain.properties, *(self._literals.normal(name) for name in plain.properties)]
        others = {
            other_than(taken, key) if pattern is None else bounded(pattern, key): self._fit(
                where, each - key - 4
            )
            for pattern, where in families.items()
        }
        opened = self._closed(plain, names, tuple(names), half) | {
            "patternProperties": others,
            "minProperties": max(missing, 0) + len(names),
            "maxProperties": count + len(names),
        }
        return opened if not names or missing > 0 else {"anyOf": [closed, opened]}

    def _families(self, plain: Plain) -> dict[str | None, Where]:
        """What names that are not listed may look like; None stands for all others."""
        families: dict[str | None, Where | None] = dict(plain.families.items())
        return {
            pattern: where
            for pattern, where in (families or {None: plain.additional}).items()
            if where is not None and self._sizes.narrowest(where) < math.inf
        }

    def _kept(self, plain: Plain, room: int) -> list[str]:
        """The properties that are listed and fit, in their order."""
        left = room - self._listed(plain, plain.required)
        optional = plain.limit("maxProperties", math.inf) - len(plain.required)
        kept = []
        for name in plain.properties:
            if name not in plain.required:
                need = self._listed(plain, [name]) - 1
                if need > left or optional < 1:
                    continue
                left, optional = left - need, optional - 1
            kept.append(name)
        return kept

    def _listed(self, plain: Plain, names: Iterable[str]) -> float:
        """Characters of the smallest object with these properties."""
        return 1 + sum(
            len(self._sizes.key(plain, name)) + 1 + self._need(plain.properties[name])[0]
            for name in names
        )

    def _closed(
        self, plain: Plain, names: list[str], required: tuple[str, ...], room: int
    ) -> dict[str, Any]:
        """Objects of these properties alone."""
        keys = {name: self._sizes.key(plain, name) for name in names}
        needs = [self._need(plain.properties[name]) for name in names]
        left = room - 2 - sum(len(key) + 1 for key in keys.values())
        rooms = shares(left, needs)
        least = int(plain.limit("minProperties", 0))
        must = [*required, *(name for name in names if name not in required)]
        must = must[: max(len(required), least if least > 1 or required else 0)]
        properties = {
            self._literals.text(name, plain.place): self._fit(plain.properties[name], given)
            for name, given in zip(names, rooms, strict=True)
        }
        if len(properties) < len(names):
            raise ParameterError(
                "{path} has two names that the vocabulary spells alike.", path=plain.place
            )
        schema: dict[str, Any] = {
            "type": "object",
            "properties": properties,
            "required": [self._literals.text(name, plain.place) for name in names if name in must],
            "additionalProperties": False,
        }
        return schema | ({"minProperties": 1} if least and not must else {})

    def _need(self, where: Where | None) -> tuple[float, float]:
        """The characters of the smallest and of the largest value."""
        if where is None:
            return math.inf, math.inf
        return self._sizes.narrowest(where), self._sizes.most(where)

    def _explain(self, where: Where, trail: tuple[Where, ...]) -> None:
        if self._sizes.narrowest(where) < math.inf:
            return
        path = where[0] if where else "#"
        if where in trail:
            raise ParameterError("{path} needs itself, without an end.", path=path)
        for plain, kind in self._sizes.alternatives(where):
            missing = self._sizes.unwritable(kind)
            if missing:
                raise cannot_spell(WRITTEN[kind], missing, plain.place)
            if kind == "object":
                needed = [plain.properties[name] for name in plain.required]
            else:
                count = int(plain.limit("minItems", 0)) if kind == "array" else 0
                needed = [plain.item(i) for i in range(min(count, len(plain.prefix) + 1))]
            for inner in needed:
                if inner is not None:
                    self._explain(inner, (*trail, where))
        raise ParameterError("{path}: no value can follow the schema.", path=path)


def _count(room: int) -> int:
    """How many values, each of which may grow, share some room: about its square root."""
    return max(1, step(math.isqrt(room)))
