"""The numbers of a schema: the shortest one, and schemas with bounds."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from issun.runtime.constraint.plain import Plain
from issun.runtime.constraint.references import inside
from issun.runtime.errors import ParameterError

DIGITS = 15  # of a number unless its schema requires more: the precision of a float
EXACT = 1 << 53  # above this a float, which grammars use, cannot represent every integer
_PLACES = 10  # decimals: the finest step in a grammar is 1e-10
_SPLITS = (2, 6, 10)  # decimals that numbers without bounds may have


def shortest(plain: Plain) -> int:
    """Return the number of characters that suffices for a number that follows `plain`."""
    return _digits(plain) + (_nearest(plain) < 0)


def longest(plain: Plain) -> int:
    """Return the characters of the longest number in the narrowed schema."""
    return max(DIGITS, _digits(plain)) + 1 + ("fraction" in plain.types)


def fit(plain: Plain, room: int) -> dict[str, Any]:
    """Return a schema of numbers that follow `plain` in `room` tokens, or a few more if needed.

    Raises ParameterError if the schema requires numbers that a grammar cannot represent.
    """
    digits = max(1, min(DIGITS, room - 1), _digits(plain))
    if "fraction" not in plain.types:
        return {"type": "integer"} | _bounds(plain, digits) | _multiples(plain)
    if plain.multiples:
        places = max(_places(Fraction(str(multiple))) for multiple in plain.multiples)
        return {"type": "number"} | _bounds(plain, digits - places) | _multiples(plain)
    options = [
        {"type": "number"} | _bounds(plain, digits - places) | {"multipleOf": 10.0**-places or 1}
        for places in _splits(plain, digits)
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _splits(plain: Plain, digits: int) -> list[int]:
    """Return how many decimals numbers of so many digits may have."""
    (low, low_out), (high, high_out) = plain.low(), plain.high()
    most = digits - _digits(plain)
    if low is None or high is None:
        return [places for places in _SPLITS if places < most] or [0]
    whole = len(str(int(max(abs(low), abs(high)))))
    for places in range(max(0, min(_PLACES, digits - whole)), _PLACES + 1):
        unit = Fraction(1, 10**places)
        least = math.ceil(low / unit) * unit
        least += unit if least == low and low_out else 0
        if least < high or (least == high and not high_out):
            return [places]
    raise ParameterError(
        "{path} leaves no number of {places} places or less.", path=plain.place, places=_PLACES
    )


def _bounds(plain: Plain, digits: int) -> dict[str, Any]:
    """Return the bounds of `plain`, or those of so many digits if these are tighter."""
    (low, low_out), (high, high_out) = plain.low(), plain.high()
    limit = 10 ** max(1, digits, _digits(plain)) - 1
    bounds: dict[str, Any] = {"minimum": -limit, "maximum": limit}
    for name, bound, out in (("minimum", low, low_out), ("maximum", high, high_out)):
        if bound is None or not -limit <= bound <= limit:
            continue
        if abs(bound) > EXACT:
            path = inside(plain.place, name)
            raise ParameterError("{path} cannot be followed.", path=path)
        del bounds[name]
        bounds[f"exclusive{name.capitalize()}" if out else name] = (
            int(bound) if bound.denominator == 1 else float(bound)
        )
    return bounds


def _multiples(plain: Plain) -> dict[str, Any]:
    return {"allOf": [{"multipleOf": multiple} for multiple in plain.multiples]}


def _nearest(plain: Plain) -> Fraction:
    """Return the bound nearest to zero if zero is excluded, otherwise zero."""
    (low, _), (high, _) = plain.low(), plain.high()
    if low is not None and low > 0:
        return low
    return high if high is not None and high < 0 else Fraction(0)


def _digits(plain: Plain) -> int:
    """Return the digits before the decimal point that suffice for some number."""
    nearest = abs(_nearest(plain))
    if not nearest:
        return 1
    reach = max((Fraction(str(multiple)) for multiple in plain.multiples), default=Fraction(0))
    return len(str(math.ceil(nearest + reach)))


def _places(number: Fraction) -> int:
    """Return the number of decimals."""
    return next((n for n in range(32) if (number * 10**n).denominator == 1), 32)
