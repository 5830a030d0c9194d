"""Checks numbers against their ranges; a range is named in words, which the command line knows."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

from issun.runtime.errors import ParameterError


def check_range(
    name: str, value: Any, kind: Any, low: float, high: float, *, exclusive: bool = False
) -> None:
    """Raise ParameterError unless `value` is of `kind`, Real or Integral, and in its range.

    `exclusive` leaves out the lower end.
    """
    good = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and (low < value if exclusive else low <= value)  # false for NaN
        and value <= high
    )
    if not good:
        bounds = _bounds(low, high, exclusive=exclusive)
        if kind is Integral:
            raise ParameterError(
                "{name} is {value!r}, it must be a whole number {bounds}.",
                name=name,
                value=value,
                bounds=bounds,
            )
        raise ParameterError(
            "{name} is {value!r}, it must be a number {bounds}.",
            name=name,
            value=value,
            bounds=bounds,
        )


def _bounds(low: float, high: float, *, exclusive: bool) -> str:
    """A range in words, which the command line translates."""
    if math.isinf(low):
        return f"of at most {high:g}"
    if math.isinf(high):
        return f"of at least {low:g}"
    return f"above {low:g} and at most {high:g}" if exclusive else f"from {low:g} to {high:g}"
