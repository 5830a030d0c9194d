"""Whether a literal value follows a schema: of an enum those count that do."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from issun.runtime.constraint.alternatives import Alternatives
from issun.runtime.constraint.plain import Plain, Where, canonical, type_of


def follows(value: Any, plain: Plain, alternatives: Alternatives) -> bool:
    """Whether `value` follows `plain`, which may list values."""
    return _listed(value, plain) and fits(value, plain, alternatives)


def fits(value: Any, plain: Plain, alternatives: Alternatives) -> bool:
    """Whether `value` follows all of `plain` but the list of its values."""
    alternatives.effort.check()
    kind = type_of(value)
    if kind not in plain.types:
        return False
    if isinstance(value, str):
        return _within(len(value), plain, "Length") and all(
            plain.finds(pattern, value) for _, pattern in plain.patterns
        )
    if isinstance(value, list):
        apart = not plain.unique or len({canonical(item) for item in value}) == len(value)
        return (
            apart
            and _within(len(value), plain, "Items")
            and all(_inside(item, plain.item(i), alternatives) for i, item in enumerate(value))
        )
    if isinstance(value, dict):
        return (
            _within(len(value), plain, "Properties")
            and value.keys() >= set(plain.required)
            and all(_inside(v, plain.property(name), alternatives) for name, v in value.items())
        )
    return kind not in ("integer", "fraction") or is_number(value, plain)


def _inside(value: Any, where: Where | None, alternatives: Alternatives) -> bool:
    return where == () or any(follows(value, p, alternatives) for p in alternatives.of(where))


def _listed(value: Any, plain: Plain) -> bool:
    if plain.values is None:
        return True
    return canonical(value) in {canonical(listed) for _, listed in plain.values}


def _within(size: int, plain: Plain, name: str) -> bool:
    return bool(plain.limit(f"min{name}", 0) <= size <= plain.limit(f"max{name}", math.inf))


def is_number(value: float, plain: Plain) -> bool:
    """Whether a number keeps the bounds of `plain` and is a multiple of what it must be."""
    exact = Fraction(str(value))
    (low, low_out), (high, high_out) = plain.low(), plain.high()
    if low is not None and (exact < low or (low_out and exact == low)):
        return False
    if high is not None and (exact > high or (high_out and exact == high)):
        return False
    units = (Fraction(str(multiple)) for multiple in plain.multiples)
    return all(unit and (exact / unit).denominator == 1 for unit in units)
