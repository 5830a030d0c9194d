"""Narrows a schema so that every value fits the token budget of an answer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from issun.runtime.constraint import numbers
from issun.runtime.constraint.budget import divide, round_down
from issun.runtime.constraint.flat_schema import Conjunction, FlatSchema
from issun.runtime.constraint.literals import Literals
from issun.runtime.constraint.patterns import bounded, other_than
from issun.runtime.constraint.sizes import REQUIRED_CHARACTERS, Sizes
from issun.runtime.constraint.strings import ESCAPES, Strings
from issun.runtime.constraint.vocabulary import unspellable_error
from issun.runtime.errors import ParameterError

_MAX_DEFINITIONS = 2000
_NAME_CHARS = 16  # characters of a property name that is not listed in the schema


class Fitter:
    """Builds schemas for llguidance: definitions without cycles, each for a budget of characters.

    Strings, arrays, the names and number of properties, and the depth get bounds if the schema
    allows values beyond the budget. Optional properties and alternatives that do not fit are left
    out. If even the smallest value does not fit, that one is allowed.
    """

    def __init__(self, sizes: Sizes, literals: Literals, strings: Strings) -> None:
        self._sizes, self._literals, self._strings = sizes, literals, strings
        self._names: dict[tuple[Conjunction, int], str] = {}
        self._definitions: dict[str, Any] = {}

    def schema(self, places: Conjunction, budget: int) -> dict[str, Any]:
        """Return a schema for `places` in `budget` characters; there must be a value."""
        options = {"whitespace_flexible": False, "json_allowed_escapes": ESCAPES}
        root = self._fit(places, budget)
        return {**root, "$defs": self._definitions, "x-guidance": options}

    def explain(self, places: Conjunction) -> None:
        """Raise ParameterError with the reason if no value can be written."""
        self._explain(places, ())

    def _fit(self, places: Conjunction | None, budget: float) -> Any:
        """Return a schema for `places` in `budget` characters."""
        self._sizes.effort.check()
        if places is None:
            return False
        budget = max(round_down(int(budget)), int(self._sizes.min_chars(places)))
        key = places, budget
        if len(self._names) >= _MAX_DEFINITIONS:
            raise ParameterError("The schema is too large: simplify it.")
        if key not in self._names:
            name = self._names[key] = str(len(self._names))
            self._definitions[name] = self._alternatives(places, budget)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _alternatives(self, places: Conjunction, budget: int) -> dict[str, Any]:
        options = [
            self._kind(flat, kind, budget)
            for flat, kind in self._sizes.alternatives(places)
            if self._sizes.min_chars_of(flat, kind) <= budget
        ]
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _kind(self, flat: FlatSchema, kind: str, budget: int) -> dict[str, Any]:
        if kind == "values":
            return {"enum": self._sizes.listed(flat)}
        if kind == "object":
            return self._object(flat, budget)
        if kind == "array":
            return self._array(flat, budget)
        if kind == "string":
            return self._strings.fit(flat, budget)
        return numbers.fit(flat, budget) if kind == "number" else {"type": kind}

    def _array(self, flat: FlatSchema, budget: int) -> dict[str, Any]:
        if flat.unique:
            raise ParameterError("{path} is not supported.", path=flat.unique)
        count = least = int(flat.limit("minItems", 0))
        most = flat.limit("maxItems", math.inf)
        left = budget - 2 - sum(1 + self._char_range(flat.item(i))[0] for i in range(least))
        while count < most:
            minimum, maximum = self._char_range(flat.item(count))
            # An item that can grow gets twice its minimum, and only so many share the budget.
            wanted = 1 + max(minimum, min(maximum, 2 * minimum))
            enough = maximum == math.inf and count >= max(len(flat.prefix), _num_growing(budget))
            if wanted > left or enough:
                break
            count, left = count + 1, left - wanted
        needs = [self._char_range(flat.item(i)) for i in range(count)]
        budgets = divide(budget - 2 - count, needs)
        listed = min(len(flat.prefix), count)
        prefix = [self._fit(flat.item(i), budgets[i]) for i in range(listed)]
        schema: dict[str, Any] = {"type": "array", "minItems": least, "maxItems": count}
        if prefix:
            schema["prefixItems"] = prefix
        if count > listed:
            schema["items"] = self._fit(flat.item(listed), min(budgets[listed:]))
        return schema

    def _object(self, flat: FlatSchema, budget: int) -> dict[str, Any]:
        names = self._fitting_properties(flat, budget)
        closed = self._closed_object(flat, names, flat.required, budget)
        unlisted = self._unlisted_properties(flat)
        missing = int(flat.limit("minProperties", 0)) - len(names)
        most = flat.limit("maxProperties", math.inf) - len(names)
        if not unlisted or most < 1:
            return closed
        # Properties that are not listed get half of the budget, next to all listed ones.
        half = max(budget // 2, int(self._object_size(flat, names))) if names else 0
        needs = [self._char_range(places)[0] for places in unlisted.values()]
        count = int(
            max(missing, min(most, _num_growing(budget), (budget - half) // (2 * min(needs) + 8)))
        )
        if count < 1:
            return closed
        each = (budget - half - 2) // count
        key = round_down(min(_NAME_CHARS, each // 4))
        excluded = [*flat.properties, *(self._literals.nearest(name) for name in flat.properties)]
        others = {
            other_than(excluded, key) if pattern is None else bounded(pattern, key): self._fit(
                places, each - key - 4
            )
            for pattern, places in unlisted.items()
        }
        opened = self._closed_object(flat, names, tuple(names), half) | {
            "patternProperties": others,
            "minProperties": max(missing, 0) + len(names),
            "maxProperties": count + len(names),
        }
        return opened if not names or missing > 0 else {"anyOf": [closed, opened]}

    def _unlisted_properties(self, flat: FlatSchema) -> dict[str | None, Conjunction]:
        """Return the schemas of unlisted names by pattern; None stands for other names."""
        unlisted: dict[str | None, Conjunction | None] = dict(flat.pattern_properties.items())
        return {
            pattern: places
            for pattern, places in (unlisted or {None: flat.additional}).items()
            if places is not None and self._sizes.min_chars(places) < math.inf
        }

    def _fitting_properties(self, flat: FlatSchema, budget: int) -> list[str]:
        """Return the listed properties that fit, in order."""
        left = budget - self._object_size(flat, flat.required)
        optional = flat.limit("maxProperties", math.inf) - len(flat.required)
        kept = []
        for name in flat.properties:
            if name not in flat.required:
                need = self._object_size(flat, [name]) - 1
                if need > left or optional < 1:
                    continue
                left, optional = left - need, optional - 1
            kept.append(name)
        return kept

    def _object_size(self, flat: FlatSchema, names: Iterable[str]) -> float:
        """Return the characters of the smallest object with these properties."""
        return 1 + sum(
            self._sizes.key_size(flat, name) + 1 + self._char_range(flat.properties[name])[0]
            for name in names
        )

    def _closed_object(
        self, flat: FlatSchema, names: list[str], required: tuple[str, ...], budget: int
    ) -> dict[str, Any]:
        """Return a schema of objects with only these properties."""
        needs = [self._char_range(flat.properties[name]) for name in names]
        left = budget - 2 - sum(self._sizes.key_size(flat, name) + 1 for name in names)
        budgets = divide(left, needs)
        least = int(flat.limit("minProperties", 0))
        must = [*required, *(name for name in names if name not in required)]
        must = must[: max(len(required), least if least > 1 or required else 0)]
        properties = {
            self._literals.text(name, flat.place): self._fit(flat.properties[name], given)
            for name, given in zip(names, budgets, strict=True)
        }
        if len(properties) < len(names):
            raise ParameterError(
                "{path} has two names that the model's vocabulary spells the same.", path=flat.place
            )
        schema: dict[str, Any] = {
            "type": "object",
            "properties": properties,
            "required": [self._literals.text(name, flat.place) for name in names if name in must],
            "additionalProperties": False,
        }
        return schema | ({"minProperties": 1} if least and not must else {})

    def _char_range(self, places: Conjunction | None) -> tuple[float, float]:
        """Return the characters of the smallest and of the largest value."""
        if places is None:
            return math.inf, math.inf
        return self._sizes.min_chars(places), self._sizes.max_chars(places)

    def _explain(self, places: Conjunction, trail: tuple[Conjunction, ...]) -> None:
        if self._sizes.min_chars(places) < math.inf:
            return
        path = places[0] if places else "#"
        if places in trail:
            raise ParameterError("{path} requires an infinitely nested value.", path=path)
        for flat, kind in self._sizes.alternatives(places):
            missing = self._sizes.unspellable(kind)
            if missing:
                raise unspellable_error(REQUIRED_CHARACTERS[kind], missing, flat.place)
            if kind == "object":
                needed = [flat.properties[name] for name in flat.required]
            else:
                count = int(flat.limit("minItems", 0)) if kind == "array" else 0
                needed = [flat.item(i) for i in range(min(count, len(flat.prefix) + 1))]
            for inner in needed:
                if inner is not None:
                    self._explain(inner, (*trail, places))
        raise ParameterError("{path}: no value satisfies the schema.", path=path)


def _num_growing(budget: int) -> int:
    """Return how many values that can grow share a budget: about its square root."""
    return max(1, round_down(math.isqrt(budget)))
