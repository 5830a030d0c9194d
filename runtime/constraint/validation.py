"""Validates literal values: those of an enum that violate other keywords do not count."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.flat_schema import Conjunction, FlatSchema, canonical, type_of


def is_valid(value: Any, flat: FlatSchema, alternatives: Alternatives) -> bool:
    """Return whether `value` is valid for `flat`, including its list of values."""
    return _is_listed(value, flat) and satisfies_keywords(value, flat, alternatives)


def satisfies_keywords(value: Any, flat: FlatSchema, alternatives: Alternatives) -> bool:
    """Return whether `value` is valid for `flat` apart from its list of values."""
    alternatives.effort.check()
    kind = type_of(value)
    if kind not in flat.types:
        return False
    if isinstance(value, str):
        return _is_size_valid(len(value), flat, "Length") and all(
            flat.finds(pattern, value) for _, pattern in flat.patterns
        )
    if isinstance(value, list):
        distinct = not flat.unique or len({canonical(item) for item in value}) == len(value)
        return (
            distinct
            and _is_size_valid(len(value), flat, "Items")
            and all(
                _is_valid_nested(item, flat.item(i), alternatives) for i, item in enumerate(value)
            )
        )
    if isinstance(value, dict):
        return (
            _is_size_valid(len(value), flat, "Properties")
            and value.keys() >= set(flat.required)
            and all(
                _is_valid_nested(v, flat.property(name), alternatives) for name, v in value.items()
            )
        )
    return kind not in ("integer", "fraction") or is_valid_number(value, flat)


def _is_valid_nested(value: Any, places: Conjunction | None, alternatives: Alternatives) -> bool:
    return places == () or any(is_valid(value, p, alternatives) for p in alternatives.of(places))


def _is_listed(value: Any, flat: FlatSchema) -> bool:
    if flat.values is None:
        return True
    return canonical(value) in {canonical(listed) for _, listed in flat.values}


def _is_size_valid(size: int, flat: FlatSchema, name: str) -> bool:
    return bool(flat.limit(f"min{name}", 0) <= size <= flat.limit(f"max{name}", math.inf))


def is_valid_number(value: float, flat: FlatSchema) -> bool:
    """Return whether a number is within the bounds of `flat` and a multiple as required."""
    exact = Fraction(str(value))
    (low, low_exclusive), (high, high_exclusive) = flat.low(), flat.high()
    if low is not None and (exact < low or (low_exclusive and exact == low)):
        return False
    if high is not None and (exact > high or (high_exclusive and exact == high)):
        return False
    units = (Fraction(str(multiple)) for multiple in flat.multiples)
    return all(unit and (exact / unit).denominator == 1 for unit in units)
