"""Each linear in the cheapest precision that keeps a promise: a size, or a divergence."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import pairwise

from issun.export.errors import CheckpointError
from issun.export.lazy import LINEAR_BLOCK, PRECISIONS, Kind
from issun.export.sensitivity import Moves

_LADDER: tuple[Kind, ...] = ("int4", "int8", "float32")


def linear_bytes(width: int, out: int, kind: Kind) -> int:
    """What a linear's weight takes on disk, scales included."""
    if kind == "float32":
        return 4 * width * out
    if kind == "int8":
        return width * out + 4 * out
    blocks = -(-width // LINEAR_BLOCK)
    return out * blocks * (LINEAR_BLOCK // 2 + 4)


def choose(
    moves: Moves, shapes: Mapping[str, tuple[int, int]], *, most: float, room: int | None = None
) -> dict[str, Kind]:
    """All linears in 4 bits, then better where that takes away most for its bytes.

    It ends when all of them together move no more than `most`, or when nothing fits any more into
    `room` bytes more than all in 4 bits take.
    """
    kinds: dict[str, Kind] = dict.fromkeys(moves, _LADDER[0])
    left = sum(found["int4"] for found in moves.values())
    steps = [
        step
        for name in moves
        for step in [_step(moves[name], shapes[name], name, "int4")]
        if step is not None
    ]
    heapq.heapify(steps)
    while steps and left > most:
        _, name, kind, gain, size = heapq.heappop(steps)
        if room is not None and size > room:
            continue
        kinds[name], left = kind, left - gain
        room = None if room is None else room - size
        if (step := _step(moves[name], shapes[name], name, kind)) is not None:
            heapq.heappush(steps, step)
    return kinds


def _step(
    moved: Mapping[Kind, float], shape: tuple[int, int], name: str, now: Kind
) -> tuple[float, str, Kind, float, int] | None:
    """The next better precision: (-gain a byte, linear, precision, gain, bytes)."""
    better = dict(pairwise(_LADDER)).get(now)
    if better is None:
        return None
    gain = moved[now] - moved.get(better, 0.0)
    size = linear_bytes(*shape, better) - linear_bytes(*shape, now)
    # A narrow linear's padded 4-bit block may be as large as its 8 bits, or larger.
    return -gain / max(size, 1), name, better, gain, size


def check_budget(budget: int, least: int) -> int:
    """How many bytes a budget leaves beyond all linears in 4 bits; raises CheckpointError."""
    if budget < least:
        raise CheckpointError(
            "All in 4 bits takes {least:,.0f} MB, more than the budget of {budget:,.0f} MB.",
            least=least / 1e6,
            budget=budget / 1e6,
        )
    return budget - least


def describe(kinds: Mapping[str, Kind]) -> str:
    """How many linears have which precision."""
    counted = ((kind, list(kinds.values()).count(kind)) for kind in reversed(PRECISIONS))
    return ", ".join(f"{kind} for {count} linears" for kind, count in counted if count)
