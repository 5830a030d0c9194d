"""The numbers of a schema: the shortest one, and schemas with bounds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from issun.runtime.constraint.flat_schema import FlatSchema
from issun.runtime.constraint.references import inside
from issun.runtime.errors import ParameterError

MAX_DIGITS = 15  # of a number unless its schema requires more: the precision of a float
MAX_EXACT_INTEGER = 1 << 53  # of the floats that grammars use
_MAX_DECIMALS = 10  # decimals: the finest step in a grammar is 1e-10
_DECIMALS = (2, 6, 10)  # decimals that numbers without bounds may have


def shortest(flat: FlatSchema) -> int:
    """Return the number of characters that suffices for a number that follows `flat`."""
    return _digits(flat) + (_nearest(flat) < 0)


def longest(flat: FlatSchema) -> int:
    """Return the characters of the longest number in the narrowed schema."""
    return max(MAX_DIGITS, _digits(flat)) + 1 + ("fraction" in flat.types)


def fit(flat: FlatSchema, budget: int) -> dict[str, Any]:
    """Return a schema of numbers that follow `flat` in `budget` tokens, or a few more if needed.

    Raises ParameterError if the schema requires numbers that a grammar cannot represent.
    """
    digits = max(1, min(MAX_DIGITS, budget - 1), _digits(flat))
    if "fraction" not in flat.types:
        return {"type": "integer"} | _bounds(flat, digits) | _multiples(flat)
    if flat.multiples:
        decimals = max(_num_decimals(Fraction(str(multiple))) for multiple in flat.multiples)
        return {"type": "number"} | _bounds(flat, digits - decimals) | _multiples(flat)
    options = [
        {"type": "number"} | _bounds(flat, digits - decimals) | {"multipleOf": 10.0**-decimals or 1}
        for decimals in _possible_decimals(flat, digits)
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _possible_decimals(flat: FlatSchema, digits: int) -> list[int]:
    """Return how many decimals numbers of so many digits may have."""
    (low, low_exclusive), (high, high_exclusive) = flat.low(), flat.high()
    most = digits - _digits(flat)
    if low is None or high is None:
        return [decimals for decimals in _DECIMALS if decimals < most] or [0]
    whole = len(str(int(max(abs(low), abs(high)))))
    for decimals in range(max(0, min(_MAX_DECIMALS, digits - whole)), _MAX_DECIMALS + 1):
        unit = Fraction(1, 10**decimals)
        least = math.ceil(low / unit) * unit
        least += unit if least == low and low_exclusive else 0
        if least < high or (least == high and not high_exclusive):
            return [decimals]
    raise ParameterError(
        "{path}: no number with at most {decimals} decimals is within the bounds.",
        path=flat.place,
        decimals=_MAX_DECIMALS,
    )


def _bounds(flat: FlatSchema, digits: int) -> dict[str, Any]:
    """Return the bounds of `flat`, or those of so many digits if these are tighter."""
    (low, low_exclusive), (high, high_exclusive) = flat.low(), flat.high()
    limit = 10 ** max(1, digits, _digits(flat)) - 1
    bounds: dict[str, Any] = {"minimum": -limit, "maximum": limit}
    for name, bound, exclusive in (
        ("minimum", low, low_exclusive),
        ("maximum", high, high_exclusive),
    ):
        if bound is None or not -limit <= bound <= limit:
            continue
        if abs(bound) > MAX_EXACT_INTEGER:
            path = inside(flat.place, name)
            raise ParameterError("{path} is not supported.", path=path)
        del bounds[name]
        bounds[f"exclusive{name.capitalize()}" if exclusive else name] = (
            int(bound) if bound.denominator == 1 else float(bound)
        )
    return bounds


def _multiples(flat: FlatSchema) -> dict[str, Any]:
    return {"allOf": [{"multipleOf": multiple} for multiple in flat.multiples]}


def _nearest(flat: FlatSchema) -> Fraction:
    """Return the bound nearest to zero if zero is excluded, otherwise zero."""
    (low, _), (high, _) = flat.low(), flat.high()
    if low is not None and low > 0:
        return low
    return high if high is not None and high < 0 else Fraction(0)


def _digits(flat: FlatSchema) -> int:
    """Return the digits before the decimal point that suffice for some number."""
    nearest = abs(_nearest(flat))
    if not nearest:
        return 1
    reach = max((Fraction(str(multiple)) for multiple in flat.multiples), default=Fraction(0))
    return len(str(math.ceil(nearest + reach)))


def _num_decimals(number: Fraction) -> int:
    """Return the number of decimals."""
    return next((n for n in range(32) if (number * 10**n).denominator == 1), 32)
