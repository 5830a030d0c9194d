"""Mixed precision: chooses each linear layer's precision for a size or an error limit."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import pairwise

from issun.export.errors import CheckpointError
from issun.export.lazy import LINEAR_BLOCK, PRECISIONS, Kind
from issun.export.sensitivity import Sensitivities

_LADDER: tuple[Kind, ...] = ("int4", "int8", "float32")


def linear_bytes(width: int, out: int, kind: Kind) -> int:
    """Bytes of a linear layer's weight on disk, scales included."""
    if kind == "float32":
        return 4 * width * out
    if kind == "int8":
        return width * out + 4 * out
    blocks = -(-width // LINEAR_BLOCK)
    return out * blocks * (LINEAR_BLOCK // 2 + 4)


def choose_precisions(
    sensitivities: Sensitivities,
    shapes: Mapping[str, tuple[int, int]],
    *,
    max_error: float,
    extra_bytes: int | None = None,
) -> dict[str, Kind]:
    """Start with int4 everywhere, and raise the precision where a byte reduces the error most.

    Stops when the sum of the sensitivities is at most `max_error`, or when no further step fits
    into `extra_bytes` beyond the size of int4 everywhere.
    """
    kinds: dict[str, Kind] = dict.fromkeys(sensitivities, _LADDER[0])
    error = sum(by_kind["int4"] for by_kind in sensitivities.values())
    steps = [
        step
        for name in sensitivities
        for step in [_step(sensitivities[name], shapes[name], name, "int4")]
        if step is not None
    ]
    heapq.heapify(steps)
    while steps and error > max_error:
        _, name, kind, gain, size = heapq.heappop(steps)
        if extra_bytes is not None and size > extra_bytes:
            continue
        kinds[name], error = kind, error - gain
        extra_bytes = None if extra_bytes is None else extra_bytes - size
        if (step := _step(sensitivities[name], shapes[name], name, kind)) is not None:
            heapq.heappush(steps, step)
    return kinds


def _step(
    sensitivity: Mapping[Kind, float], shape: tuple[int, int], name: str, current: Kind
) -> tuple[float, str, Kind, float, int] | None:
    """The next higher precision: (-gain per byte, layer, precision, gain, bytes)."""
    better = dict(pairwise(_LADDER)).get(current)
    if better is None:
        return None
    gain = sensitivity[current] - sensitivity.get(better, 0.0)
    size = linear_bytes(*shape, better) - linear_bytes(*shape, current)
    # A narrow linear's padded 4-bit block may be as large as its 8 bits, or larger.
    return -gain / max(size, 1), name, better, gain, size


def check_budget(budget: int, least: int) -> int:
    """The bytes of `budget` beyond `least`, the size of int4 everywhere; raises CheckpointError."""
    if budget < least:
        raise CheckpointError(
            "The model needs {least} with all linear layers in int4, more than the budget of "
            "{budget}.",
            least=_size(least),
            budget=_size(budget),
        )
    return budget - least


def _size(size: int) -> str:
    """`1,310 MB`, or smaller units below 1 MB."""
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.0f} {name}"
    return f"{size} bytes"


def describe(kinds: Mapping[str, Kind]) -> str:
    """How many linear layers have each precision."""
    counted = ((kind, list(kinds.values()).count(kind)) for kind in reversed(PRECISIONS))
    return ", ".join(f"{kind} for {count} linear layers" for kind, count in counted if count)
